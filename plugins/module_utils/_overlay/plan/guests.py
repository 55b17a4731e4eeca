# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes hosts' parts when machines come, go or move, and gives machines their MAC addresses and MTUs (pure)."""

from __future__ import annotations

import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._ethernet import card_mac, mac_address
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.domain_xml import guest_device
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.host.records import Forwarding, Guest, Part
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.plan.records import Machine


class Card(t.TypedDict):
    """A network card of a machine, and the host that the machine is on."""

    provider: str
    network: str
    mac: str


def mac_of(machine: Machine) -> str:
    """The machine's MAC address: the known one, or the one that it will get."""
    known = machine.get("mac")
    return (known or mac_address(machine["network"], machine.get("site") or "site", machine["uuid"])).lower()


def follow(part: Part, host: str, machines: t.Sequence[Machine], gone: t.Collection[str] = ()) -> Part:
    """A host's part, with these machines where they are now.

    :param host: whose part it is.
    :param machines: with ``provider``, ``network`` and ``mac``.
    :param gone: MAC addresses of machines that no longer exist.
    """
    here = {network["name"] for network in part.get("networks") or []}
    moved = {
        str(machine["mac"]).lower(): machine
        for machine in machines
        if machine.get("network") in here and machine.get("provider") and machine.get("mac")
    }
    without = {*moved, *(mac.lower() for mac in gone)}
    guests: list[Guest] = [guest for guest in part.get("guests") or [] if guest["mac"] not in without]
    guests += [
        {"device": guest_device(mac), "mac": mac, "network": machine["network"]}
        for mac, machine in moved.items()
        if machine["provider"] == host
    ]
    forwarding: list[Forwarding] = [entry for entry in part.get("forwarding") or [] if entry["mac"] not in without]
    forwarding += [
        {"device": link["device"], "mac": mac}
        for link in part.get("links") or []
        for mac, machine in moved.items()
        if link["role"] == "shortcut" and link["peer"] == machine["provider"] and link["network"] == machine["network"]
    ]
    return {
        **part,
        "guests": sorted(guests, key=lambda guest: guest["mac"]),
        "forwarding": sorted(forwarding, key=lambda entry: (entry["device"], entry["mac"])),
    }


def overlay_machines(shares: t.Mapping[str, t.Sequence[Machine]], known: t.Sequence[Machine] = ()) -> list[Card]:
    """The option ``machines`` of the module ``overlay``: each card of each machine.

    :param shares: entries of the module ``machine`` by provider.
    :param known: machines whose MAC address is known, with ``uuid`` and ``mac``. A machine that moved keeps it.
    """
    macs = {row.get("uuid"): row["mac"] for row in known if row.get("mac")}
    found: list[Card] = []
    for provider, machines in shares.items():
        for machine in machines or ():
            if not machine.get("network") or not machine.get("uuid"):
                continue
            own: Machine = {**machine, "mac": macs.get(machine["uuid"])}
            mac = mac_of(own)
            cards = {
                machine["network"]: mac,
                **{network: card_mac(network, mac) for network in machine.get("extra_networks") or ()},
            }
            found += [{"provider": provider, "network": network, "mac": address} for network, address in cards.items()]
    return found


def with_mtu(machines: t.Sequence[Machine], part: Part) -> list[dict[str, object]]:
    """Entries of the module ``machine`` with ``mtu``, of their first network, and ``mtus``, of their others, as far as
    these networks are in the host's part."""
    mtu = {network["name"]: network["mtu"] for network in part.get("networks") or []}
    found: list[dict[str, object]] = []
    for machine in machines:
        first = {"mtu": mtu[machine["network"]]} if machine.get("network") in mtu else {}
        others = {network: mtu[network] for network in machine.get("extra_networks") or () if network in mtu}
        found.append({**machine, **first, **({"mtus": others} if others else {})})
    return found


def overlay_lacks(
    infos: t.Sequence[t.Mapping[str, t.Any]], given: t.Sequence[t.Mapping[str, t.Any]], hosts: t.Sequence[str]
) -> bool:
    """Whether a host lacks a network that it should have.

    :param infos: results of ``overlay_info``, in the order of ``hosts``.
    :param given: ``virtuoso_networks``.
    """
    there = {
        host: {network["name"] for network in (info.get("part") or {}).get("networks") or []}
        for host, info in zip(hosts, infos)
    }
    return any(
        entry.get("name") not in there[host] for entry in given for host in entry.get("hosts") or hosts if host in there
    )
