# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the overlay's hosts are told of machines that move, for the module ``overlay`` (pure).

*Before* the move (a machine is prepared) the target admits the machine, which is to speak from the moment that it runs
there; the source still does. Hosts with a shortcut to one of the two forget it, so that their frames take the tree,
which learns where the machine is from its first frame. *After* the move all are told where it is.
"""

from __future__ import annotations

import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._ethernet import card_mac
from ansible_collections.virtuoso.grid.plugins.module_utils._migration.records import (
    Card,
    Facts,
    Forwarded,
    Machine,
    Network,
    Notice,
    Place,
    Result,
    Row,
    Wave,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._migration.results import failed_row, reason


def _peers(network: Network, host: str) -> set[str]:
    """The hosts with a shortcut to a host."""
    return {str(end) for pair in network.get("shortcuts") or () if host in pair for end in pair} - {host}


def _place(machine: Machine) -> str | None:
    """Where a machine is after its move (where it is prepared: will be), as far as that is known."""
    if machine["status"] in ("prepared", "received", "done"):
        return machine["target"]
    failure = (machine.get("row") or {}).get("failure") or {}
    stayed = machine["status"] in ("restore", "undo") or failure.get("copy") == "source"
    return machine["source"] if stayed else None


def _cards(machine: Machine) -> t.Iterator[Card]:
    """The network cards of a machine of which the hosts are to be told.

    None where it isn't known where the machine is, or what its first card's MAC address is.
    """
    place, mac = _place(machine), machine.get("mac")
    if place is None or not mac:
        return
    others = ((network, card_mac(network, mac)) for network in machine.get("extra_networks") or ())
    for network, address in ((machine.get("network"), mac), *others):
        yield {
            "name": machine["name"],
            "uuid": str(machine["uuid"]),
            "network": network,
            "mac": address.lower(),
            "source": machine["source"],
            "target": machine["target"],
            "at": place,
            "coming": machine["status"] == "prepared",
        }


def settled(done: t.Sequence[Row], seen: t.Sequence[Facts]) -> Wave:
    """Machines whose interrupted moves were settled, as a wave of journeys that are over.

    :param done: what was settled, on which provider.
    :param seen: where the machines are now.
    """
    hosts: dict[str, list[str]] = {}
    for row in done:
        hosts.setdefault(str(row["uuid"]), []).append(row["provider"])
    wave: Wave = []
    for facts in seen:
        for host in hosts.get(facts["uuid"], ()):
            machine: Machine = {
                "name": facts.get("name") or facts["uuid"],
                "uuid": facts["uuid"],
                "network": facts.get("network"),
                "mac": facts.get("mac"),
                "extra_networks": facts.get("extra_networks") or [],
                "source": host,
                "target": facts["provider"],
                "status": "done",
                "settled": True,
            }
            networks = [str(card["network"]) for card in _cards(machine)]
            wave.append({"source": host, "target": facts["provider"], "networks": networks, "machines": [machine]})
    return wave


def notices(wave: Wave, networks: t.Sequence[Network]) -> list[Notice]:
    """What each host of the overlay is to be told of a wave's machines.

    :param networks: ``virtuoso_networks``. A machine that is on none of them concerns nobody.
    """
    found: dict[str, Notice] = {}
    by_name = {network["name"]: network for network in networks}
    for card in (card for journey in wave for machine in journey["machines"] for card in _cards(machine)):
        network = by_name.get(str(card["network"]))
        if network is None:
            continue
        ends = {card["source"], card["target"]}
        others = (_peers(network, card["source"]) | _peers(network, card["target"])) - ends
        place: Place = {"provider": card["at"], "network": card["network"], "mac": card["mac"]}
        for host in sorted(({card["target"]} if card["coming"] else ends) | others):
            mine = found.setdefault(host, {"host": host, "machines": [], "macs": [], "announce": []})
            if card["coming"] and host in others:
                mine["macs"].append(card["mac"])
            elif place not in mine["machines"]:
                mine["machines"].append(place)
            if host == card["target"] == card["at"] and not card["coming"] and card["mac"] not in mine["announce"]:
                mine["announce"].append(card["mac"])
    return [{**found[host], "announce": sorted(found[host]["announce"])} for host in sorted(found)]


def forwarded(
    wave: Wave, networks: t.Sequence[Network], told: t.Mapping[str, Result], announced: t.Mapping[str, Result]
) -> Forwarded:
    """The wave after the hosts were told.

    A machine that its target doesn't admit stays. The row of one that moved although a host wasn't told says so; where
    it has none in this run, a warning does.

    :param told: results of the module ``overlay`` by host, as is ``announced``.
    """
    warnings: dict[str, None] = {}
    after: Wave = []
    for journey in wave:
        machines: list[Machine] = []
        for machine in journey["machines"]:
            asked = notices([{"machines": [machine]}], networks)
            bad = [notice["host"] for notice in asked if _failed(told.get(notice["host"]))]
            if machine.get("settled"):
                for host in bad:
                    said = reason(told[host])[1]
                    warnings[f"{host} wasn't told where machines are now: {said}. Run virtuoso.grid.overlay"] = None
            elif machine["status"] != "prepared" and bad:
                machine = _unreported(machine, bad[0], told[bad[0]])
            elif machine["status"] == "prepared" and machine["target"] in bad:
                machine = _refused(machine, told[machine["target"]])
            machines.append(machine)
        after.append({**journey, "machines": machines})
    for host, result in announced.items():
        if result.get("unreachable") or result.get("failure") or result.get("exception"):
            said = reason(result)[1]
            what = "didn't announce the machines that are there now; they are reached when they have spoken"
            warnings[f"{host} {what}: {said}"] = None
    return {"wave": after, "warnings": list(warnings)}


def _refused(machine: Machine, result: Result) -> Machine:
    """A machine whose target's network doesn't admit it."""
    error = GridError(
        "forwarding_failed",
        f"its network doesn't admit it there: {reason(result)[1]}",
        remedy="Run virtuoso.grid.overlay, then run again",
    )
    return {**machine, "status": "failed", "row": failed_row(machine, error, machine["target"])}


def _unreported(machine: Machine, host: str, result: Result) -> Machine:
    """A machine of which a host wasn't told where it is."""
    there = machine["status"] in ("received", "done")
    what = (
        "it is where it should be, but its network wasn't told" if there else "its network wasn't told that it stayed"
    )
    error = GridError("forwarding_failed", f"{what}: {reason(result)[1]}", remedy="Run virtuoso.grid.overlay")
    row: Row = machine.get("row") or {}
    if not row.get("failed"):
        row = t.cast(Row, {**row, **failed_row(machine, error, host), "changed": True})
    return {**machine, "row": row}


def _failed(result: Result | None) -> bool:
    """Whether a host wasn't told. One of which there is no result was not asked: it is no host of the play."""
    if result is None:
        return False
    return bool(
        result.get("unreachable") or result.get("failure") or (result.get("part") is None and not result.get("skipped"))
    )
