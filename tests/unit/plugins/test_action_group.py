# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action group has every module, so that ``module_defaults`` for the group reaches all of them."""

from __future__ import annotations

from pathlib import Path

import yaml

ROOT = Path(__file__).parents[3]


def test_the_action_group_has_every_module():
    runtime = yaml.safe_load((ROOT / "meta/runtime.yml").read_text(encoding="utf-8"))
    modules = sorted(path.stem for path in (ROOT / "plugins/modules").glob("*.py"))
    assert runtime["action_groups"]["grid"] == modules


def test_every_action_plugin_belongs_to_a_module():
    modules = {path.stem for path in (ROOT / "plugins/modules").glob("*.py")}
    assert {path.stem for path in (ROOT / "plugins/action").glob("*.py")} <= modules
