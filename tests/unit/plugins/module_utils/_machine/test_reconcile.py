# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what is and what should be to steps: the table of docs/machines.md, line by line."""

from __future__ import annotations

import dataclasses

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor import metadata
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.actual import Disk, Observed
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.reconcile import decide, decide_power

GIB = 2**30
BELOW = "sha256:" + "b" * 64
LAYER = "/depot/images/layers/sha256-0.qcow2"
WANTED = {
    "uuid": "5f0d5b1e-6c1c-4f3a-9c0f-2d6a1f0e8b11",
    "name": "web1",
    "owner": "alice",
    "site": "site-a",
    "generation": 1,
    "image": {"name": "tiny@1", "digest": "sha256:" + "0" * 64},
    "vcpus": 1,
    "memory": GIB,
    "disk": None,
    "packages": [],
    "users": [],
    "network": "virtuoso",
    "display": "vnc",
    "display_password": None,
    "cpu_shares": 100,
    "cpu_limit": None,
    "disk_io": None,
    "goal": "balance",
    "tags": [],
    "user": None,
    "python": None,
    "vcpus_max": None,
    "memory_max": None,
    "extra_networks": [],
    "boot": ["disk"],
    "description": None,
    "autostart": None,
}
SAME = (
    "vcpus",
    "memory",
    "network",
    "display",
    "cpu_shares",
    "cpu_limit",
    "disk_io",
    "memory_max",
    "extra_networks",
    "boot",
    "description",
)
MODEL = {
    **{field: WANTED[field] for field in SAME},
    "display_password": "now",
    "vcpus_max": 2,
    "vcpus_removable": 0,
    "memory_base": GIB,
    "memory_ceiling": GIB,
    "balloon": True,
    "free_ports": 1,
    "autostart": False,
    "virtualization": "kvm",
}


def observed(state="stopped", started=True, live=None, **changes):
    running = {**MODEL, **(live or {})} if state in ("running", "paused") else None
    return dataclasses.replace(
        Observed(
            state, dict(MODEL), running, metadata.of_spec(WANTED, started), Disk(GIB, LAYER), seed=True, files=True
        ),
        **changes,
    )


def decided(wanted=None, there=None, state="present", layer=Disk(GIB), missing=None):
    return decide(
        {**WANTED, **(wanted or {})}, there or observed(), state, layer=layer, layer_path=LAYER, missing=missing
    )


def code(*args, **kwargs):
    with pytest.raises(GridError) as caught:
        decided(*args, **kwargs)
    return caught.value.code


@pytest.mark.parametrize(
    "now, state, actions, end",
    [
        ("stopped", "present", [], "stopped"),
        ("stopped", "running", ["start"], "running"),
        ("stopped", "stopped", [], "stopped"),
        ("stopped", "restarted", ["start"], "running"),
        ("stopped", "absent", ["remove"], "absent"),
        ("running", "present", [], "running"),
        ("running", "running", [], "running"),
        ("running", "stopped", ["stop"], "stopped"),
        ("running", "restarted", ["stop", "start"], "running"),
        ("running", "absent", ["remove"], "absent"),
        ("paused", "present", [], "paused"),
        ("paused", "running", ["resume"], "running"),
        ("paused", "stopped", ["stop"], "stopped"),
        ("paused", "restarted", ["stop", "start"], "running"),
        ("paused", "absent", ["remove"], "absent"),
        ("stopped", "paused", ["start", "pause"], "paused"),
        ("running", "paused", ["pause"], "paused"),
        ("paused", "paused", [], "paused"),
        ("stopped", "rebooted", ["start"], "running"),
        ("running", "rebooted", ["reboot"], "running"),
        ("paused", "rebooted", ["resume", "reboot"], "running"),
        ("stopped", "reset", ["start"], "running"),
        ("running", "reset", ["reset"], "running"),
        ("paused", "reset", ["reset", "resume"], "running"),
        ("stopped", "hibernated", [], "stopped"),
        ("running", "hibernated", ["hibernate"], "hibernated"),
        ("paused", "hibernated", ["hibernate"], "hibernated"),
        ("hibernated", "present", [], "hibernated"),
        ("hibernated", "hibernated", [], "hibernated"),
        ("hibernated", "running", ["wake"], "running"),
        ("hibernated", "paused", ["wake", "pause"], "paused"),
        ("hibernated", "stopped", ["wake", "stop"], "stopped"),
        ("hibernated", "restarted", ["wake", "stop", "start"], "running"),
        ("hibernated", "rebooted", ["wake", "reboot"], "running"),
        ("hibernated", "reset", ["wake", "reset"], "running"),
        ("hibernated", "absent", ["remove"], "absent"),
    ],
)
def test_power(now, state, actions, end):
    for decision in (decided(there=observed(now), state=state), decide_power(observed(now), state)):
        assert (decision.actions, decision.state) == (actions, end)


@pytest.mark.parametrize(
    "state, actions, end",
    [
        ("present", ["create disk", "write seed", "define"], "stopped"),
        ("stopped", ["create disk", "write seed", "define"], "stopped"),
        ("running", ["create disk", "write seed", "define", "start"], "running"),
        ("restarted", ["create disk", "write seed", "define", "start"], "running"),
        ("absent", [], "absent"),
    ],
)
def test_creation(state, actions, end):
    decision = decided(there=Observed(), state=state)
    assert (decision.actions, decision.state) == (actions, end)


def test_an_interrupted_creation_is_finished_with_the_disk_that_is_there():
    there = Observed(disk=Disk(GIB, LAYER), seed=True, files=True)
    assert decided(there=there, state="running").actions == ["write seed", "define", "start"]
    assert decided({"disk": 2 * GIB}, there).actions == ["write seed", "grow disk", "define"]


def test_a_machine_that_was_there_is_not_made_anew_with_an_empty_disk():
    assert code({"exists": True}, Observed()) == "machine_vanished"
    kept = Observed(disk=Disk(GIB, LAYER), files=True)
    assert decided({"exists": True}, kept).actions == ["write seed", "define"]


def test_an_interrupted_removal_is_finished():
    assert decide_power(Observed(files=True), "absent").actions == ["remove"]


CHANGES = [
    # field, wanted, while it runs, while it is off
    ("vcpus", 3, "change vcpus at next start", "change vcpus"),
    ("vcpus_max", 8, "change vcpus_max at next start", "change vcpus_max"),
    ("memory_max", 4 * GIB, "change memory_max at next start", "change memory_max"),
    ("extra_networks", ["a", "b"], "change extra_networks at next start", "change extra_networks"),
    ("boot", ["network", "disk"], "change boot at next start", "change boot"),
    ("description", "web", "change description live", "change description"),
    ("autostart", True, "change autostart live", "change autostart"),
    ("memory", 2 * GIB, "change memory at next start", "change memory"),
    ("network", "lan", "change network at next start", "change network"),
    ("display", "none", "change display at next start", "change display"),
    ("display_password", "new", "change display_password live", "change display_password"),
    ("disk_io", {"read_iops": 100}, "change disk_io live", "change disk_io"),
    ("cpu_shares", 300, "change cpu_shares live", "change cpu_shares"),
    ("cpu_limit", {"period": 100000, "quota": 20000}, "change cpu_limit live", "change cpu_limit"),
    ("disk", 2 * GIB, "grow disk live", "grow disk"),
    ("owner", "bob", "change owner live", "change owner"),
    ("goal", "price", "change goal live", "change goal"),
    ("tags", ["x"], "change tags live", "change tags"),
    ("site", "site-b", "change site live", "change site"),
    ("generation", 2, "change generation live", "change generation"),
]


@pytest.mark.parametrize("field, value, running, off", CHANGES, ids=[change[0] for change in CHANGES])
def test_when_a_change_takes_effect(field, value, running, off):
    # What nothing else in the domain tells is told in its metadata as well.
    told = field in metadata.GROWTH
    assert decided({field: value}, observed("running")).actions == [running, *["change wishes live"] * told]
    assert decided({field: value}, observed("paused")).actions == [running, *["change wishes live"] * told]
    assert decided({field: value}, observed("stopped")).actions == [off, *["change wishes"] * told]


@pytest.mark.parametrize("field, value", [(change[0], change[1]) for change in CHANGES if "next start" in change[2]])
def test_what_waits_for_the_next_start_is_told_until_it_has_come(field, value):
    told = {field: [MODEL[field], value]}
    assert decided({field: value}, observed("running")).pending == told
    # the second run changes nothing and still tells
    there = observed(
        "running", config={**MODEL, field: value}, metadata=metadata.of_spec({**WANTED, field: value}, True)
    )
    again = decided({field: value}, there)
    assert (again.actions, again.pending) == ([], told)
    assert decide_power(there, "running").pending == told
    for state in ("restarted", "stopped"):
        assert decided({field: value}, there, state).pending == {}
    assert decided({field: value}, observed("stopped")).pending == {}


def test_a_change_taken_back_before_the_restart_leaves_nothing_pending():
    there = observed("running", config={**MODEL, "memory": 2 * GIB})
    decision = decided({}, there)
    assert (decision.actions, decision.pending) == (["change memory at next start"], {})


def test_a_live_field_that_differs_in_the_running_machine_only_is_put_right():
    assert decided({}, observed("running", live={"cpu_shares": 7})).actions == ["change cpu_shares live"]
    assert decided({"display_password": "now"}, observed("running", live={"display_password": "old"})).actions == [
        "change display_password live"
    ]


def test_a_password_that_nobody_gave_is_left_alone():
    assert decided({"display_password": None}).actions == []
    assert (
        decided({"display_password": "x", "display": "none"}, observed(config={**MODEL, "display": "none"})).actions
        == []
    )


@pytest.mark.parametrize(
    "field, value",
    [("packages", ["nginx"]), ("users", [{"name": "a", "shell": "/bin/sh", "sudo": False, "ssh_authorized_keys": []}])],
)
def test_first_boot_only(field, value):
    fresh = decided({field: value}, observed(started=False))
    assert fresh.actions == ["write seed", f"change {field}"] and not fresh.ignored
    used = decided({field: value}, observed(started=True))
    assert used.actions == [] and list(used.ignored) == [field]
    assert used.metadata[field] == []
    # somebody started it by other means than ours
    assert decided({field: value}, observed("running", started=False)).ignored


def test_a_lost_seed_is_written_again():
    assert decided({}, observed(seed=False), "running").actions == ["write seed", "start"]


@pytest.mark.parametrize(
    "expected, wanted, kwargs",
    [
        ("cannot_change", {"name": "web2"}, {}),
        ("cannot_change", {"image": {"name": "tiny@2", "digest": "sha256:" + "1" * 64}}, {}),
        ("cannot_shrink", {"disk": GIB - 1}, {}),
        ("stale_generation", {"generation": 0}, {}),
        ("disk_missing", {}, {"there": observed(disk=None), "state": "running"}),
        ("image_missing", {}, {"there": observed(missing=BELOW), "state": "running"}),
        ("image_missing", {}, {"there": observed("running", missing=BELOW), "state": "restarted"}),
        ("image_missing", {}, {"layer": None, "missing": WANTED["image"]["digest"], "there": Observed()}),
        ("image_missing", {}, {"missing": BELOW, "there": Observed()}),
        ("disk_too_small", {"disk": GIB - 1}, {"there": Observed()}),
        ("disk_conflict", {}, {"there": Observed(disk=Disk(GIB, "/another"))}),
        ("cannot_shrink", {"disk": GIB - 1}, {"there": Observed(disk=Disk(GIB, LAYER))}),
    ],
)
def test_impossible(expected, wanted, kwargs):
    assert code(wanted, **kwargs) == expected


def test_a_machine_can_go_whatever_is_wrong_with_it():
    assert decided({"disk": 1, "name": "x"}, observed(disk=None, seed=False), "absent", layer=None).actions == [
        "remove"
    ]


def test_the_missing_layer_of_a_chain_is_named():
    for decision in (
        lambda: decided({}, Observed(), missing=BELOW),
        lambda: decide_power(observed(missing=BELOW), "running"),
    ):
        with pytest.raises(GridError) as caught:
            decision()
        assert (
            caught.value.code == "image_missing"
            and caught.value.details["layer"] == BELOW
            and BELOW in str(caught.value)
        )


def test_a_machine_without_its_layers_can_still_be_turned_off_and_removed():
    assert decided({}, observed("running", missing=BELOW), "stopped").actions == ["stop"]
    assert decide_power(observed("running", missing=BELOW), "absent").actions == ["remove"]


@pytest.mark.parametrize("state", ["present", "running", "stopped", "restarted"])
def test_power_of_an_unknown_machine(state):
    with pytest.raises(GridError) as caught:
        decide_power(Observed(), state)
    assert caught.value.code == "machine_unknown"
    assert decide_power(Observed(), "absent").actions == []


def test_all_at_once_keeps_its_order():
    wanted = {"memory": 2 * GIB, "cpu_shares": 5, "disk": 2 * GIB, "tags": ["x"]}
    assert decided(wanted, observed("running"), "restarted").actions == [
        "change memory at next start",
        "change cpu_shares live",
        "grow disk live",
        "change tags live",
        "stop",
        "start",
    ]


def test_what_an_entry_does_not_say_of_the_image_stays():
    there = observed(metadata=metadata.of_spec({**WANTED, "user": "debian", "python": "/usr/bin/python3"}, True))
    assert decided({"user": None, "python": None}, there).actions == []
    assert decided({"user": "admin"}, there).actions == ["change user"]


def test_in_check_mode_the_layer_may_still_come():
    absent = Observed()
    assert code(None, absent, "running", layer=None, missing=BELOW) == "image_missing"
    decision = decide(WANTED, absent, "running", layer=None, layer_path=LAYER, missing=BELOW, layer_may_come=True)
    assert decision.actions == ["create disk", "write seed", "define", "start"]


@pytest.mark.parametrize(
    "state, actions",
    [("running", ["discard memory", "start"]), ("stopped", ["discard memory"]), ("hibernated", []), ("present", [])],
)
def test_a_memory_is_lost_only_where_that_was_said(state, actions):
    assert decide_power(observed("hibernated"), state, discard=True).actions == actions


def test_a_memory_that_another_run_left_uncompressed():
    assert decide_power(observed("hibernated", memory="saved"), "hibernated").actions == ["compress memory"]
    assert decide_power(observed("hibernated", memory="saved"), "running").actions == ["wake"]


def test_what_is_off_has_no_memory_to_keep():
    for decision in (
        decided(there=observed("stopped"), state="hibernated"),
        decide_power(observed("stopped"), "hibernated"),
    ):
        assert "state" in decision.ignored and not decision.steps


def test_the_disk_of_a_hibernated_machine_stays():
    assert code({"disk": 2 * GIB}, there=observed("hibernated")) == "machine_hibernated"
    assert decided({"disk": GIB}, observed("hibernated")).actions == []


def test_a_change_that_asks_the_guest_is_made_only_while_it_is_there():
    two = {"vcpus": 2, "vcpus_removable": 1}
    config = {**MODEL, "vcpus": 2}
    for now, state, when in (
        ("running", "running", "live"),
        ("running", "present", "live"),
        ("paused", "running", "live"),
        ("paused", "present", "next start"),
        ("running", "paused", "next start"),
        ("running", "stopped", "next start"),
        ("running", "restarted", "next start"),
        ("running", "hibernated", "next start"),
    ):
        decision = decided({"vcpus": 1}, observed(now, live=two, config=config), state)
        (change,) = decision.changes
        assert change == {"field": "vcpus", "before": 2, "after": 1, "when": when}, (now, state)
        assert decision.steps[0].asks == (when == "live")
    # It is kept, and the next run has nothing to do while the guest stands still.
    again = decided({"vcpus": 1}, observed("paused", live=two), "present")
    assert (again.actions, again.pending) == ([], {"vcpus": [2, 1]})


def test_a_password_is_in_no_result():
    (change,) = decided({"display_password": "new"}, observed("running")).changes
    assert change == {"field": "display_password", "before": None, "after": None, "when": "live"}


def test_what_is_live_is_not_told_as_waiting():
    decision = decided({"vcpus": 2, "memory": 2 * GIB}, observed("running"))
    assert decision.actions == ["change vcpus live", "change memory at next start"] and decision.pending == {
        "memory": [GIB, 2 * GIB]
    }


def test_the_file_system_follows_where_somebody_is_there_to_do_it():
    def grown(there, ask=True):
        return decide(
            {**WANTED, "disk": 2 * GIB}, there, "present", layer=Disk(GIB), layer_path=LAYER, grow_filesystem=ask
        )

    assert grown(observed("running", agent=True)).actions == ["grow disk live", "grow filesystem"]
    without = grown(observed("running"))
    assert without.actions == ["grow disk live"] and "next boot" in without.ignored["grow_filesystem"]
    assert grown(observed("running", agent=True), ask=False).actions == ["grow disk live"]
    assert grown(observed("stopped")).actions == ["grow disk"] and not grown(observed("stopped")).ignored
    assert (
        decide(
            WANTED, observed("running", agent=True), "present", layer=Disk(GIB), layer_path=LAYER, grow_filesystem=True
        ).actions
        == []
    )


def test_a_hibernated_machine_is_not_started_with_its_provider():
    """What is wished of it meanwhile is kept in its definition until it is awake; and what somebody had set by hand
    before it slept."""
    asleep = decided({"autostart": True}, observed("hibernated"))
    assert asleep.actions == ["change wishes", "change autostart"] and asleep.metadata["autostart"] is True
    by_hand = observed("hibernated", metadata={**metadata.of_spec(WANTED, True), "autostart": True})
    assert decided({}, by_hand).actions == [] and decided({"owner": "bob"}, by_hand).metadata["autostart"] is True
    assert decided({"autostart": False}, by_hand).actions == ["change autostart"]
