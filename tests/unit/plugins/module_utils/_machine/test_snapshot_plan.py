# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is to be done for a machine's snapshots."""

from __future__ import annotations

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.snapshots.plan import Seen, check_name, decide, end


def seen(state="running", listed="", inner=None, memory="", pages=False):
    inner = listed if inner is None else inner
    return Seen(state, pages, *(frozenset(names.split()) for names in (listed, inner, memory)))


def words(*args, **kwargs):
    return [str(step) for step in decide(*args, **kwargs)]


def code(*args, **kwargs):
    with pytest.raises(GridError) as caught:
        decide(*args, **kwargs)
    assert caught.value.details.get("remedy") or caught.value.remedy
    return caught.value.code


def test_it_is_taken_once():
    assert words("present", seen(), "a") == ["take a"]
    assert words("present", seen(listed="a"), "a") == []
    assert words("present", seen(listed="a", memory="a"), "a", True) == []
    assert words("present", seen(listed="a", memory="a"), "a", False) == []
    assert words("present", seen(state="stopped"), "a") == ["take a"]


@pytest.mark.parametrize(
    "left", [{"inner": "a"}, {"memory": "a"}, {"inner": "a", "memory": "a"}, {"listed": "a", "inner": ""}]
)
def test_what_a_killed_run_left_is_no_snapshot(left):
    assert words("present", seen(**left), "a") == ["drop a", "take a"]
    assert words("absent", seen(**left), "a") == ["drop a"]
    assert code("reverted", seen(**left), "a") == "snapshot_unknown"


def test_it_is_deleted_once_or_all_are():
    assert words("absent", seen(listed="a b"), "a") == ["drop a"]
    assert words("absent", seen(listed="b"), "a") == []
    assert words("absent", seen(listed="a b", inner="b c", memory="d"), None) == [
        "drop a",
        "drop b",
        "drop c",
        "drop d",
    ]
    assert words("absent", seen("hibernated"), None) == []


def test_what_is_refused():
    assert code("present", seen(listed="a"), "a", True) == "snapshot_differs"
    assert code("present", seen("stopped"), "a", True) == "no_memory_to_keep"
    assert code("present", seen("hibernated"), "a") == "machine_hibernated"
    assert code("absent", seen("hibernated", listed="a"), "a") == "machine_hibernated"
    assert code("present", seen(pages=True), "a") == "machine_pages"
    assert code("reverted", seen(listed="b"), "a") == "snapshot_unknown"


@pytest.mark.parametrize(
    "now, awake, then",
    [
        ("running", None, "running"),
        ("stopped", None, "stopped"),
        ("hibernated", None, "stopped"),
        ("stopped", True, "running"),
        ("running", False, "paused"),
    ],
)
def test_the_state_after_reverting(now, awake, then):
    there = seen(now, listed="a")
    assert end(decide("reverted", there, "a"), there, awake) == then
    assert end(decide("present", there, "a"), there, None) == now


@pytest.mark.parametrize("name", ["", "a/b", "../x", ".hidden", "a" * 64, "a b", "a\n", None, 1, "-x"])
def test_names_that_could_lead_elsewhere(name):
    with pytest.raises(GridError) as caught:
        check_name(name)
    assert caught.value.code == "invalid_snapshot"


def test_names():
    assert check_name("before-upgrade_2.0") == "before-upgrade_2.0"
