# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the overlay's hosts are told of machines that move, for the module ``overlay`` (pure).

*Before* the move the target admits the machine, which is to speak from the moment that it runs there; the source still
does. Hosts with a shortcut to one of the two forget it, so that their frames take the tree, which learns where it is
from its first word. *After* the move all are told where it is.
"""

from __future__ import annotations

import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._ethernet import card_mac
from ansible_collections.virtuoso.grid.plugins.module_utils._migration.plan import failed_row, reason

Item = t.Dict[str, t.Any]
Items = t.List[Item]
View = t.Mapping[str, t.Any]

BEFORE, AFTER = "before", "after"


def _peers(network: View, host: str) -> set[str]:
    """The hosts with a shortcut to a host."""
    return {str(end) for pair in network.get("shortcuts") or () if host in pair for end in pair} - {host}


def _known(machine: View) -> str | None:
    """Where a machine is after its move, as far as that can be told."""
    if machine["status"] in ("received", "done"):
        return str(machine["target"])
    failure = (machine.get("row") or {}).get("failure") or {}
    return (
        str(machine["source"]) if machine["status"] in ("restore", "undo") or failure.get("copy") == "source" else None
    )


def _cards(machine: View) -> t.Iterator[Item]:
    """Network and MAC address of each of a machine's cards; none where the first one's isn't known."""
    if machine.get("mac"):
        yield {"network": machine.get("network"), "mac": machine["mac"]}
        for network in machine.get("extra_networks") or ():
            yield {"network": network, "mac": card_mac(network, machine["mac"])}


def moved(wave: t.Sequence[View], moment: str) -> Items:
    """The cards of a wave's machines that the overlay's hosts are to be told of: ``name``, ``mac``, ``network``,
    ``source``, ``target``, and ``at``, where they are (before the move: will be)."""
    found = []
    for machine in (machine for journey in wave for machine in journey["machines"]):
        here = (
            (str(machine["target"]) if machine["status"] == "prepared" else None)
            if moment == BEFORE
            else _known(machine)
        )
        if here is not None:
            found += [
                {**{key: machine[key] for key in ("name", "uuid", "source", "target")}, **card, "at": here}
                for card in _cards(machine)
            ]
    return found


def came_to_rest(done: t.Sequence[View], seen: t.Sequence[View]) -> Items:
    """The same of machines of which the one true copy was found after an interruption.
    :param done: rows of what was settled on which host."""
    hosts: dict[str, list[str]] = {}
    for row in done:
        hosts.setdefault(row["uuid"], []).append(row["provider"])
    return [
        {
            "name": row.get("name"),
            "uuid": row["uuid"],
            **card,
            "source": host,
            "target": row["provider"],
            "at": row["provider"],
        }
        for row in seen
        for host in hosts.get(row["uuid"], ())
        for card in _cards(row)
    ]


def told(machines: t.Sequence[View], networks: t.Sequence[View], moment: str = AFTER) -> dict[str, Item]:
    """By host, what the module ``overlay`` is told: ``machines`` and ``macs``, with the state ``followed``.

    :param networks: ``virtuoso_networks``. A machine that is on none of them concerns nobody.
    """
    found: dict[str, Item] = {}
    by_name = {network["name"]: network for network in networks}
    for machine in machines:
        network = by_name.get(machine["network"])
        if network is None:
            continue
        ends = {machine["source"], machine["target"]}
        others = (_peers(network, machine["source"]) | _peers(network, machine["target"])) - ends
        entry = {"provider": machine["at"], "network": machine["network"], "mac": machine["mac"].lower()}
        for host in sorted(({machine["target"]} if moment == BEFORE else ends) | others):
            mine = found.setdefault(host, {"machines": [], "macs": []})
            if moment == BEFORE and host in others:
                mine["macs"].append(entry["mac"])
            elif entry not in mine["machines"]:
                mine["machines"].append(entry)
    return found


def announced(machines: t.Sequence[View], networks: t.Sequence[View]) -> dict[str, list[str]]:
    """By host, the MAC addresses of the machines that have come there."""
    names = {network["name"] for network in networks}
    found: dict[str, list[str]] = {}
    for machine in machines:
        if machine["network"] in names and machine["at"] == machine["target"]:
            found.setdefault(machine["at"], []).append(machine["mac"].lower())
    return {host: sorted(set(macs)) for host, macs in found.items()}


def forwarded(wave: t.Sequence[View], moment: str, networks: t.Sequence[View], results: t.Mapping[str, View]) -> Items:
    """The wave after the hosts were told. A machine that its target doesn't admit stays; one that moved although a host
    wasn't told is told as failed.

    :param results: of :func:`_migration_play.by_host`, of the module ``overlay``.
    """
    after: Items = []
    for journey in wave:
        machines: Items = []
        for machine in journey["machines"]:
            asked = told(moved([{"machines": [machine]}], moment), networks, moment)
            bad = next((host for host in asked if host in results and _failed(results[host])), None)
            if bad is None or (moment == BEFORE and bad != machine["target"]):
                machines.append(dict(machine))
                continue
            said = reason(results[bad])[1]
            if moment == BEFORE:
                error = GridError(
                    "forwarding_failed",
                    f"its network doesn't admit it there: {said}",
                    remedy="Run virtuoso.grid.overlay, then run again",
                )
                machines.append({**machine, "status": "failed", "row": failed_row(machine, error, bad)})
            else:
                there = machine["status"] in ("received", "done")
                what = (
                    "it is where it should be, but its network wasn't told"
                    if there
                    else "its network wasn't told that it stayed"
                )
                error = GridError("forwarding_failed", f"{what}: {said}", remedy="Run virtuoso.grid.overlay")
                row = machine.get("row") or {}
                machines.append(
                    {
                        **machine,
                        "row": row
                        if row.get("failed")
                        else {**row, **failed_row(machine, error, bad), "changed": True},
                    }
                )
        after.append({**journey, "machines": machines})
    return after


def untold(told_hosts: t.Mapping[str, View], announcements: t.Mapping[str, View], rows: bool) -> list[str]:
    """Warnings of what nobody else tells (pure): hosts that weren't told where machines are, and machines that weren't
    announced.

    :param rows: whether machines' own rows tell of the first, as :func:`forwarded` makes them.
    """
    found = []
    for host, result in () if rows else told_hosts.items():
        if _failed(result):
            found.append(f"{host} wasn't told where machines are now: {reason(result)[1]}. Run virtuoso.grid.overlay")
    for host, result in announcements.items():
        if result.get("unreachable") or result.get("failure") or result.get("exception"):
            found.append(
                f"{host} didn't announce the machines that are there now; they are reached when they have spoken: {reason(result)[1]}"
            )
    return found


def _failed(result: View) -> bool:
    return bool(
        result.get("unreachable") or result.get("failure") or (result.get("part") is None and not result.get("skipped"))
    )
