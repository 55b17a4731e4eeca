# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each verb, from each state that a machine may be in: check mode says what the run does, and a second run changes
nothing. On guests of one sector."""

from __future__ import annotations

import conftest
import pytest
from guests import codes, foretold

pytestmark = pytest.mark.usefixtures("cleaned")

STATES = ("running", "paused", "stopped", "hibernated")

ALWAYS = ("restarted", "rebooted", "reset")
"""Verbs that act at each run."""

POWER = {
    # verb: what comes of a machine that was running, paused, stopped, hibernated
    "present": ("running", "paused", "stopped", "hibernated"),
    "running": ("running",) * 4,
    "paused": ("paused",) * 4,
    "stopped": ("stopped",) * 4,
    "hibernated": ("hibernated", "hibernated", "stopped", "hibernated"),
    "restarted": ("running",) * 4,
    "rebooted": ("running",) * 4,
    "reset": ("running",) * 4,
    "absent": ("absent",) * 4,
}

CHANGES = (
    {"vcpus": 2},
    {"vcpus_max": 3},
    {"memory_max": "64 MiB"},
    {"extra_networks": ["virtuoso"]},
    {"boot": ["network", "disk"]},
    {"display": "none"},
    {"performance": {"cpu_shares": 300}},
    {"performance": {"reservation": {"period": "100 ms", "slice": "50 ms"}}},
    {"performance": {"disk_io": {"read_iops": 100}}},
    {"description": "a <web>"},
    {"autostart": True},
    {"tags": ["one", "two"]},
    {"owner": "bob"},
    {"goal": "pack"},
    {"generation": 2},
    {"disk": "4 MiB"},
)
ASLEEP = {"disk": "machine_hibernated"}
"""What isn't changed of a hibernated machine."""


@pytest.fixture(scope="module", name="provider", params=conftest.PROVIDERS)
def _provider(request):
    yield from conftest.provider_of(request.param)


@pytest.fixture(name="cleaned")
def _cleaned(provider):
    yield
    provider.wipe()


def brought(provider, machines, states=STATES):
    """Machines that run, each brought to a state."""
    done = provider.run(machines)
    assert codes(done) == [None] * len(machines), done
    for state in ("paused", "hibernated", "stopped"):
        chosen = [{"uuid": machine["uuid"]} for machine, wanted in zip(machines, states) if wanted == state]
        # Not all of them hear the button.
        options = {"force": True, "timeout": 1} if state == "stopped" else {}
        assert not chosen or codes(provider.run(chosen, state, **options)) == [None] * len(chosen)


def told(results, number):
    return foretold({"machines": [results["machines"][number]]})


def wrong(names, act, ends=None, repeats=False, fails=None):
    """What doesn't hold, in words: check mode, the run, and the same again."""
    said, done, again = act(True), act(False), act(False)
    found = []
    for number, name in enumerate(names):
        expected = (fails or {}).get(name)
        if [codes(each)[number] for each in (said, done, again)] != [expected] * 3:
            found.append(
                f"{name}: "
                f"{[(codes(each)[number], each['machines'][number].get('msg')) for each in (said, done, again)]}"
            )
        elif expected is None:
            if told(said, number) != told(done, number):
                found.append(f"{name}: check mode said {told(said, number)}, the run {told(done, number)}")
            if again["machines"][number]["changed"] is not repeats:
                found.append(f"{name}: again: {told(again, number)}")
            state = done["machines"][number]["state"]
            if ends and state != ends[number]:
                found.append(f"{name}: it is {state}")
    # Check mode shows what is going to be done; who isn't changed is not in it.
    if len(said.get("diff") or []) != sum(machine["changed"] for machine in said["machines"]):
        found.append(f"diff: {said.get('diff')}")
    return found


def machines_of(provider, image="polite"):
    return [provider.machine(f"it-{state}", image) for state in STATES]


@pytest.mark.parametrize("verb", POWER)
def test_power(provider, verb):
    machines = machines_of(provider)
    brought(provider, machines)
    assert not wrong(
        STATES, lambda check: provider.run(machines, verb, check=check), POWER[verb], repeats=verb in ALWAYS
    )


@pytest.mark.parametrize("state", STATES)
def test_changes(provider, state):
    """A machine for each, so that one run has all."""
    fields = [next(iter(change.get("performance") or change)) for change in CHANGES]
    machines = [provider.machine(f"it-{number}", "counting") for number in range(len(CHANGES))]
    brought(provider, machines, [state] * len(CHANGES))
    wanted = [{**machine, **change} for machine, change in zip(machines, CHANGES)]
    fails = ASLEEP if state == "hibernated" else {}
    assert not wrong(
        fields, lambda check: provider.run(wanted, "present", check=check), [state] * len(CHANGES), fails=fails
    )
    # And back, where it doesn't take the guest's part, which this one doesn't do.
    back = [
        number
        for number, field in enumerate(fields)
        if field not in ("disk", "generation", "vcpus") and (field != "extra_networks" or state != "running")
    ]
    assert not wrong(
        [fields[n] for n in back], lambda check: provider.run([machines[n] for n in back], "present", check=check)
    )


@pytest.mark.parametrize("memory", [False, True])
def test_snapshots(provider, memory):
    machines, names = machines_of(provider, "counting"), [f"it-{state}" for state in STATES]
    asleep = "machine_hibernated"
    off = "no_memory_to_keep" if memory else None
    provider.run(machines)
    # Each has one of before, so that there is something to delete, and to go back to, also where none is taken.
    assert codes(provider.snapshot(names, snapshot="old", memory=memory)) == [None] * 4
    brought(provider, machines)

    def act(state, snapshot):
        # Named at each run: a snapshot's memory is asked for only where one is taken
        options = {"memory": memory} if state == "present" else {}
        return lambda check: provider.snapshot(names, state, snapshot=snapshot, check=check, **options)

    assert not wrong(STATES, act("present", "old"), STATES)
    assert not wrong(STATES, act("present", "new"), STATES, fails={"hibernated": asleep, "stopped": off})
    there = {"hibernated": "snapshot_unknown", **({"stopped": "snapshot_unknown"} if memory else {})}
    ends = ("running", "paused", "running" if memory else "stopped", "hibernated")
    assert not wrong(STATES, act("reverted", "new"), ends, repeats=True, fails=there)
    assert not wrong(STATES, act("absent", "old"), fails={"hibernated": asleep})
    assert not wrong(
        STATES, act("reverted", "old"), fails={state: "snapshot_unknown" for state in STATES[:3]}, repeats=True
    )
    assert not wrong(STATES, lambda check: provider.snapshot(names, "absent", all=True, check=check))
