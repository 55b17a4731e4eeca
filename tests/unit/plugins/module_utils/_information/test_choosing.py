# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which machines a play is about."""

from __future__ import annotations

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._information.inventory.choosing import chosen, names_of

MACHINES = [
    {"name": "a", "provider": "p1"},
    {"name": "b", "provider": "p2"},
    {"name": "c", "provider": "p1"},
    {"name": "d", "provider": None},
]


@pytest.mark.parametrize(
    ("select", "limit", "names"),
    [
        ("all", None, "abcd"),
        (["a"], None, "a"),
        ("c,a", None, "ac"),
        ([" b ", ""], None, "b"),
        ("", ["p1"], "ac"),
        ([], ["p2", "d"], "bd"),
        ("a,b", ["p1"], "a"),
        ("all", ["p2"], "b"),
        # What is limited to hosts that have none is none.
        ("", ["p3"], ""),
        ("b", ["p1"], ""),
        (None, ["c"], "c"),
    ],
)
def test_by_names_and_by_limit(select, limit, names):
    assert "".join(machine["name"] for machine in chosen(MACHINES, select, limit)) == names


@pytest.mark.parametrize("select", [None, "", [], ","])
def test_nobody_has_all_by_a_slip_of_the_pen(select):
    with pytest.raises(GridError) as caught:
        chosen(MACHINES, select, None)
    assert (
        caught.value.code == "nothing_chosen"
        and "Say which machines" in caught.value.remedy
        and "a, b, c, d" in caught.value.remedy
    )


@pytest.mark.parametrize("limit", [None, ["p1"]])
def test_a_machine_that_nobody_ordered(limit):
    with pytest.raises(GridError) as caught:
        chosen(MACHINES, "a,x,y,x", limit)
    assert caught.value.code == "machine_unknown" and caught.value.msg == "No such machine: x, y"
    assert caught.value.details["unknown"] == ["x", "y"] and caught.value.remedy == "Known are: a, b, c, d"
    with pytest.raises(GridError) as caught:
        chosen([], "a", limit)
    assert caught.value.remedy == "Known are: none"


@pytest.mark.parametrize("select", [5, {"a": 1}, [1]])
def test_what_are_no_names(select):
    with pytest.raises(GridError) as caught:
        names_of(select)
    assert caught.value.code == "invalid_options"


def test_many_names_are_not_all_told():
    with pytest.raises(GridError) as caught:
        chosen([{"name": f"m{number}", "provider": None} for number in range(60)], "x", None)
    assert caught.value.remedy.endswith("m49 and 10 more")
