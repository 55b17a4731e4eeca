# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which copy is the true one: over all combinations of what two hosts and the store can say."""

from __future__ import annotations

import itertools

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core import copies

STATES = ("absent", "running", "paused", "stopped", "hibernated")
MARK = {"generation": 2, "to": "b", "attempt": "x", "autostart": False}


def source_says():
    """All that the source of a move from generation 1 to 2 can say: nothing, nothing there, its copy with or without
    the mark."""
    yield copies.Copy("a", answers=False)
    yield copies.Copy("a")
    for state, moving, slept in itertools.product(STATES[1:], (None, MARK), (None, "running")):
        yield copies.Copy("a", state=state, generation=1, moving=moving, slept=slept)


def target_says():
    """All that the target can say: nothing, nothing there, files half or whole, its copy with or without them."""
    parts = (None, {"generation": 2, "complete": False}, {"generation": 2, "complete": True})
    yield copies.Copy("b", answers=False)
    for incoming in parts:
        yield copies.Copy("b", incoming=incoming)
    for state, incoming in itertools.product(STATES[1:], parts):
        yield copies.Copy("b", state=state, generation=2, incoming=incoming)


KNOWN = (None, {"provider": "a", "generation": 1}, {"provider": "b", "generation": 2})
DEAD = ((), ("a",), ("b",), ("a", "b"))
ALL = list(itertools.product(source_says(), target_says(), KNOWN, DEAD))


def test_there_are_many_combinations():
    assert len(ALL) > 1500


def test_no_combination_makes_two_copies_or_none():
    for case in ALL:
        check(*case)


def check(source, target, known, dead):
    """What must hold whatever the hosts say."""
    verdict = copies.decide([source, target], known, dead)
    assert (verdict.host is None) == (verdict.problem is not None)
    acted = {"a": verdict.actions.get("a"), "b": verdict.actions.get("b")}
    for copy in (source, target):
        if not copy.answers:
            assert acted[copy.host] is None, "nothing is done on a host that doesn't answer"
        if copy.state == "running":
            assert acted[copy.host] not in (copies.RELEASE, copies.DISCARD, copies.ADOPT), (
                "a guest that runs is never removed"
            )
        if copy.state != "absent":
            assert acted[copy.host] not in (copies.DISCARD, copies.ADOPT), (
                "a copy is never thrown away as if it were none"
            )
    # The source may come back to life only where the target is known to have no copy, or its own guest runs, or a
    # person said so.
    if acted["a"] == copies.RESTORE:
        assert target.state == "absent"
        assert target.answers or source.state == "running" or "b" in dead or not source.moving
    # It goes only where the target has a newer one.
    if acted["a"] == copies.RELEASE:
        assert source.moving and target.state != "absent" and verdict.host == "b"
    # What came becomes the machine only on somebody's word, and only where it is whole and the source says nothing or
    # has nothing.
    if acted["b"] == copies.ADOPT:
        assert target.incoming["complete"] and source.state == "absent" and (source.answers or "a" in dead)
    # Afterwards at most one copy can be started.
    startable = []
    for copy in (source, target):
        action = acted[copy.host]
        there = copy.answers and (copy.state != "absent" or action == copies.ADOPT) and action != copies.RELEASE
        if there and (not copy.moving or action == copies.RESTORE):
            startable.append(copy.host)
    if verdict.host is not None:
        assert [host for host in startable if host not in verdict.stale] == [verdict.host]


@pytest.mark.parametrize(
    ("source", "target", "known", "dead", "host", "actions"),
    [
        # nothing happened yet
        ({"state": "running"}, {}, KNOWN[1], (), "a", {}),
        # room was made
        ({"state": "running"}, {"incoming": {"complete": False}}, KNOWN[1], (), "a", {"b": "discard"}),
        # killed under way: the guest runs, or stands still
        (
            {"state": "running", "moving": MARK},
            {"incoming": {"complete": False}},
            KNOWN[1],
            (),
            "a",
            {"a": "restore", "b": "discard"},
        ),
        ({"state": "paused", "moving": MARK}, {}, KNOWN[1], (), "a", {"a": "restore"}),
        # the guest runs at the target; the source's copy is still there
        (
            {"state": "stopped", "moving": MARK},
            {"state": "running", "generation": 2, "incoming": {}},
            KNOWN[1],
            (),
            "b",
            {"a": "release"},
        ),
        (
            {"state": "stopped", "moving": MARK},
            {"state": "running", "generation": 2, "incoming": {"complete": False}},
            KNOWN[1],
            (),
            "b",
            {"a": "release", "b": "finish"},
        ),
        # only the store doesn't know yet
        ({}, {"state": "running", "generation": 2}, KNOWN[1], (), "b", {}),
        # files are all there, and nobody was told
        (
            {"state": "stopped", "moving": MARK},
            {"incoming": {"complete": True}},
            KNOWN[1],
            (),
            "a",
            {"a": "restore", "b": "discard"},
        ),
        # put to sleep for a journey that it didn't begin: it goes on, also where the target says nothing
        ({"state": "hibernated", "slept": "running"}, {}, KNOWN[1], (), "a", {"a": "restore"}),
        ({"state": "hibernated", "slept": "running"}, {"answers": False}, KNOWN[1], (), "a", {"a": "restore"}),
        # it came, and sleeps still
        (
            {"state": "hibernated", "moving": MARK, "slept": "running"},
            {"state": "hibernated", "generation": 2, "incoming": {"complete": True}},
            KNOWN[1],
            (),
            "b",
            {"a": "release", "b": "finish"},
        ),
        # the source is dead
        ({"answers": False}, {"incoming": {"complete": True}}, KNOWN[1], ("a",), "b", {"b": "adopt"}),
        ({"answers": False}, {"state": "stopped", "generation": 2}, KNOWN[1], (), "b", {}),
    ],
)
def test_each_point_of_a_move(source, target, known, dead, host, actions):
    a = copies.Copy("a", **{"generation": 1 if source.get("state") else 0, **source})
    b = copies.Copy("b", **target)
    verdict = copies.decide([a, b], known, dead)
    assert (verdict.host, verdict.actions, verdict.stale) == (host, actions, ())


@pytest.mark.parametrize(
    ("source", "target", "known", "dead", "code"),
    [
        # the source doesn't answer: whether it has the machine is not known
        ({"answers": False}, {"incoming": {"complete": True}}, KNOWN[1], (), "host_unreachable"),
        ({"answers": False}, {}, KNOWN[1], (), "host_unreachable"),
        # the target doesn't answer, and the guest doesn't run at the source
        ({"state": "paused", "moving": MARK}, {"answers": False}, KNOWN[1], (), "host_unreachable"),
        ({"state": "stopped", "moving": MARK}, {"answers": False}, KNOWN[1], (), "host_unreachable"),
        # the old copy comes back while the new one's host is away
        ({"state": "stopped"}, {"answers": False}, KNOWN[2], (), "stale_generation"),
        ({"state": "stopped", "moving": MARK}, {}, KNOWN[2], (), "stale_generation"),
        ({"answers": False}, {}, KNOWN[1], ("a",), "no_copy"),
        ({}, {}, KNOWN[1], (), "machine_unknown"),
        ({}, {}, None, (), "machine_unknown"),
        # both run: nobody can tell
        ({"state": "running"}, {"state": "running", "generation": 2}, KNOWN[2], (), "several_copies"),
        ({"state": "stopped"}, {"state": "stopped", "generation": 1}, KNOWN[1], (), "several_copies"),
    ],
)
def test_what_cannot_be_told_is_left_alone(source, target, known, dead, code):
    a = copies.Copy("a", **{"generation": 1 if source.get("state") else 0, **source})
    verdict = copies.decide([a, copies.Copy("b", **target)], known, dead)
    assert verdict.host is None and verdict.problem.code == code
    assert not set(verdict.actions.values()) & {copies.RESTORE, copies.RELEASE, copies.ADOPT}


def test_an_old_copy_without_a_mark_stays_and_is_told():
    verdict = copies.decide(
        [copies.Copy("a", state="stopped", generation=1), copies.Copy("b", state="running", generation=2)], KNOWN[2]
    )
    assert (verdict.host, verdict.actions, verdict.stale) == ("b", {}, ("a",))


def test_a_target_that_nobody_asked_holds_the_source_back():
    verdict = copies.decide([copies.Copy("a", state="stopped", generation=1, moving={**MARK, "to": "c"})], KNOWN[1])
    assert verdict.host is None and "c" in verdict.problem.msg


def test_views_become_copies():
    assert not copies.copy_of("a", None).answers
    view = {"uuid": "u", "state": "running", "generation": 3, "moving": None, "incoming": None, "memory": 5}
    assert copies.copy_of("a", view) == copies.Copy("a", True, "running", 3)


def test_a_copy_on_its_way_is_not_touched():
    copies.refuse_moving(None, False)
    for moving, incoming, word in ((MARK, False, "from here to b"), (None, True, "to this host")):
        with pytest.raises(copies.GridError) as caught:
            copies.refuse_moving(moving, incoming)
        assert caught.value.code == "stale_generation" and word in caught.value.msg


def test_the_disk_of_a_marked_copy_is_known_by_its_name():
    for path in ("/d/disk.qcow2", "/d/disk.qcow2.moving"):
        assert copies.hidden(path) == "/d/disk.qcow2.moving" and copies.shown(path) == "/d/disk.qcow2"
