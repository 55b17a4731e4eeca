# SPDX-License-Identifier: GPL-3.0-or-later
"""Define and start many machines on one provider: one call with a list, beside a loop of community.libvirt.virt.

Both start the same machines, from the same disks, on the same host. Between two measurements the machines are powered
off and undefined; their disks stay. The peer gets ready-made XML and disks, which it can't make itself.
"""

from __future__ import annotations

import statistics
import uuid

from measure import Row, play

MACHINES = 20
ROUNDS = 3
PROVIDER = "provider1"


def measure() -> list[Row]:
    """Seconds of a play that has 20 machines defined and started, medians of three rounds, and the play around it."""
    names = [f"bench{number:02}" for number in range(1, MACHINES + 1)]
    machines = [{"name": name, "uuid": str(uuid.uuid4())} for name in names]
    shared = {"bench_machines": machines, "bench_provider": PROVIDER}
    play("machines_prepare", **shared)
    seconds: dict[str, list[float]] = {"virtuoso": [], "community.libvirt.virt": [], "floor": []}
    try:
        disks = play("machines_ours", **shared)
        for dummy in range(ROUNDS):
            play("machines_undefine", **shared)
            seconds["virtuoso"].append(play("machines_ours", **shared))
            play("machines_undefine", **shared)
            seconds["community.libvirt.virt"].append(play("machines_peer", **shared))
            seconds["floor"].append(play("machines_floor", **shared))
    finally:
        play("machines_remove", **shared)
    case = f"define and start {MACHINES} tiny machines"
    rows: list[Row] = [
        {
            "area": "machines",
            "case": case,
            "who": who,
            "metric": "time",
            "value": statistics.median(values),
            "unit": "s",
        }
        for who, values in seconds.items()
    ]
    rows.append(
        {
            "area": "machines",
            "case": f"{case}, with their disks and seeds",
            "who": "virtuoso",
            "metric": "time",
            "value": disks,
            "unit": "s",
        }
    )
    return rows
