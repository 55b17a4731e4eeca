# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters that are loaded when they are called are there, under the names that the roles use."""

from __future__ import annotations

import inspect
import pathlib
import re
import subprocess
import sys

import pytest
import yaml
from ansible_collections.virtuoso.grid.plugins.filter import deployment, migration, networks

FILTERS = {
    **deployment.FilterModule().filters(),
    **migration.FilterModule().filters(),
    **networks.FilterModule().filters(),
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


OWN = {name for name in FILTERS if not name.startswith("migrate_")}


@pytest.mark.parametrize("name", sorted(OWN))
def test_each_is_documented_as_it_is(name):
    documentation = yaml.safe_load((ROOT / f"plugins/filter/{name}.yml").read_text(encoding="utf-8"))
    told = documentation["DOCUMENTATION"]
    assert told["name"] == name and documentation["EXAMPLES"] and documentation["RETURN"]["_value"]["description"]
    parameters = list(inspect.signature(FILTERS[name].load()).parameters.values())[1:]
    assert [each.name for each in parameters] == [option for option in told["options"] if option != "_input"]
    required = [each.name for each in parameters if each.default is inspect.Parameter.empty]
    assert required == [option for option, of in told["options"].items() if option != "_input" and of.get("required")]
    by_place = [each.name for each in parameters if each.kind is not inspect.Parameter.KEYWORD_ONLY]
    assert by_place == told.get("positional", "").replace(",", " ").split()


def test_there_is_no_documentation_of_another():
    assert {path.stem for path in ROOT.glob("plugins/filter/*.yml")} - OWN == {
        path.stem for path in ROOT.glob("plugins/filter/migrate_*.yml")
    }


def test_to_look_for_one_loads_no_room():
    code = (
        "import sys; from ansible_collections.virtuoso.grid.plugins.filter import deployment, networks; "
        "deployment.FilterModule().filters(); networks.FilterModule().filters(); "
        "print([name for name in sys.modules if '_overlay' in name or '_machine' in name])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": ":".join(sys.path)}
    )
    assert done.stdout.strip() == "[]"
