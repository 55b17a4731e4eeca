# SPDX-License-Identifier: GPL-3.0-or-later
"""Change, pause and snapshot many machines on one provider: one call with a list, beside loops of
community.libvirt.virt and of virsh.

All act on the same machines of one host, in turns. The guests stand still, so that their boots disturb nobody. ``virsh
loop`` is a loop in a play, as one would write it; ``virsh script`` is one shell task with all commands, which is the
least that can be had by hand: it checks nothing, tells nothing and changes whatever it is told to.
"""

from __future__ import annotations

import statistics
import typing as t
import uuid

import choice
from measure import Row, play

CASES = ("change", "power", "snapshot-memory", "snapshot-stopped")
MACHINES = 20
SNAPSHOTS = 10
ROUNDS = 3
PROVIDER = "provider1"

Times = t.Dict[str, t.List[float]]


def _rows(case: str, seconds: Times) -> list[Row]:
    return [
        {"area": "life", "case": case, "who": who, "metric": "time", "value": statistics.median(values), "unit": "s"}
        for who, values in seconds.items()
    ]


def _change(shared: t.Mapping[str, t.Any]) -> list[Row]:
    seconds: Times = {"virtuoso": [], "virsh loop": [], "virsh script": [], "floor": []}
    value = 100
    for dummy in range(ROUNDS):
        for who in ("virtuoso", "virsh loop", "virsh script"):
            # Each finds other values than it is to set.
            value += 10
            seconds[who].append(play(f"life_change_{who.replace(' ', '_')}", bench_value=value, **shared))
        seconds["floor"].append(play("machines_floor", **shared))
    return _rows(f"change shares, disk limits and description of {MACHINES} paused machines", seconds)


def _power(shared: t.Mapping[str, t.Any]) -> list[Row]:
    seconds: Times = {"virtuoso": [], "community.libvirt.virt": []}
    for dummy in range(ROUNDS):
        for who, playbook in (("virtuoso", "life_power_virtuoso"), ("community.libvirt.virt", "life_power_peer")):
            # There and back again
            seconds[who].append(sum(play(playbook, bench_state=state, **shared) for state in ("running", "paused")))
    return _rows(f"resume and pause {MACHINES} machines", seconds)


def _snapshots(shared: t.Mapping[str, t.Any], memory: bool) -> list[Row]:
    seconds: Times = {"virtuoso": [], "virsh loop": [], "virsh script": []}
    few = {**shared, "bench_machines": shared["bench_machines"][:SNAPSHOTS], "bench_memory": memory}
    for number in range(ROUNDS):
        for who in seconds:
            name = f"s{number}{who.replace(' ', '')}{'m' if memory else 'd'}"
            seconds[who].append(play(f"life_snapshot_{who.replace(' ', '_')}", bench_snapshot=name, **few))
    kind = "with memory, of paused" if memory else "of stopped"
    return _rows(f"snapshot {kind} machines, {SNAPSHOTS}", seconds)


def _stopped(shared: t.Mapping[str, t.Any]) -> list[Row]:
    play("life_power_virtuoso", bench_state="stopped", bench_force=True, **shared)
    return _snapshots(shared, False)


def measure() -> list[Row]:
    """Seconds of plays, medians of three rounds."""
    names = [f"bench{number:02}" for number in range(1, MACHINES + 1)]
    shared = {
        "bench_machines": [{"name": name, "uuid": str(uuid.uuid4())} for name in names],
        "bench_provider": PROVIDER,
    }
    cases = {
        "change": lambda: _change(shared),
        "power": lambda: _power(shared),
        "snapshot-memory": lambda: _snapshots(shared, True),
        "snapshot-stopped": lambda: _stopped(shared),
    }
    play("machines_prepare", **shared)
    try:
        play("life_power_virtuoso", bench_state="paused", bench_create=True, **shared)
        return [row for case in choice.chosen(CASES) for row in cases[case]()]
    finally:
        play("life_snapshot_remove", **shared)
        play("machines_remove", **shared)
