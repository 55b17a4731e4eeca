# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters that are loaded when they are called are there, under the names that the roles use."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

import pytest
from ansible_collections.virtuoso.grid.plugins.filter import deployment, home, migration

FILTERS = {
    **deployment.FilterModule().filters(),
    **home.FilterModule().filters(),
    **migration.FilterModule().filters(),
}
ROOT = pathlib.Path(deployment.__file__).resolve().parents[2]


@pytest.mark.parametrize("name", FILTERS)
def test_each_is_a_function(name):
    assert callable(FILTERS[name].load())


def test_the_roles_and_playbooks_use_none_that_there_is_not():
    used = {
        name
        for path in [*ROOT.glob("roles/**/*.yml"), *ROOT.glob("roles/**/*.j2"), *ROOT.glob("playbooks/**/*.yml")]
        for name in re.findall(r"(?:\||map\()\s*'?virtuoso\.grid\.(\w+)", path.read_text(encoding="utf-8"))
    }
    assert used and used <= set(FILTERS)


def test_an_error_of_the_plan_is_a_row():
    told = FILTERS["overlay_plan"]([{"name": "bad name!"}], {}, {})
    assert told["failed"] and told["failure"]["code"]


def test_to_look_for_one_loads_no_room():
    code = (
        "import sys; from ansible_collections.virtuoso.grid.plugins.filter import deployment, home; deployment.FilterModule().filters(); "
        "print([name for name in sys.modules if '_overlay' in name or '_machine' in name])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": ":".join(sys.path)}
    )
    assert done.stdout.strip() == "[]"
