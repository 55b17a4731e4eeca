# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Machines that come, go or move: what changes in the part of each host that they are on or that has a shortcut to them
(pure)."""

from __future__ import annotations

import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._ethernet import card_mac, mac_address
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.domain_xml import guest_device

Part = t.Dict[str, t.Any]
Machine = t.Mapping[str, t.Any]


def mac_of(machine: Machine) -> str:
    """The machine's MAC address: its own, or the one that it will have."""
    return str(
        machine.get("mac") or mac_address(machine["network"], machine.get("site") or "site", machine["uuid"])
    ).lower()


def follow(part: Part, host: str, machines: t.Sequence[Machine], gone: t.Collection[str] = ()) -> Part:
    """A host's part with these machines where they are now.

    :param host: whose part it is.
    :param machines: ``provider``, ``network`` and ``mac`` of each.
    :param gone: MAC addresses of machines that are no more.
    """
    here = {network["name"] for network in part.get("networks") or []}
    told = {
        machine["mac"].lower(): machine
        for machine in machines
        if machine.get("network") in here and machine.get("provider") and machine.get("mac")
    }
    without = {*told, *(mac.lower() for mac in gone)}
    guests = [guest for guest in part.get("guests") or [] if guest["mac"] not in without]
    guests += [
        {"device": guest_device(mac), "mac": mac, "network": machine["network"]}
        for mac, machine in told.items()
        if machine["provider"] == host
    ]
    forwarding = [entry for entry in part.get("forwarding") or [] if entry["mac"] not in without]
    forwarding += [
        {"device": link["device"], "mac": mac}
        for link in part.get("links") or []
        for mac, machine in told.items()
        if link["role"] == "shortcut" and link["peer"] == machine["provider"] and link["network"] == machine["network"]
    ]
    return {
        **part,
        "guests": sorted(guests, key=lambda guest: guest["mac"]),
        "forwarding": sorted(forwarding, key=lambda entry: (entry["device"], entry["mac"])),
    }


def overlay_machines(
    shares: t.Mapping[str, t.Sequence[Machine]], known: t.Sequence[Machine] = ()
) -> list[dict[str, t.Any]]:
    """Machines as the module ``overlay`` takes them.

    :param shares: entries of the module ``machine`` by provider.
    :param known: ``uuid`` and ``mac`` of those whose MAC address is known: one that moved keeps it.
    """
    macs = {row.get("uuid"): row["mac"] for row in known if row.get("mac")}
    found = []
    for provider, machines in shares.items():
        for machine in machines or ():
            if not machine.get("network") or not machine.get("uuid"):
                continue
            mac = mac_of({**machine, "mac": macs.get(machine["uuid"])})
            cards = {
                machine["network"]: mac,
                **{network: card_mac(network, mac) for network in machine.get("extra_networks") or ()},
            }
            found += [{"provider": provider, "network": network, "mac": address} for network, address in cards.items()]
    return found


def with_mtu(machines: t.Sequence[Machine], part: Part) -> list[dict[str, t.Any]]:
    """Entries of the module ``machine`` with the MTU of their network, where it is one of the host's part, and with
    those of their other networks."""
    mtu = {network["name"]: network["mtu"] for network in part.get("networks") or []}
    told = []
    for machine in machines:
        first = {"mtu": mtu[machine["network"]]} if machine.get("network") in mtu else {}
        others = {network: mtu[network] for network in machine.get("extra_networks") or () if network in mtu}
        told.append({**machine, **first, **({"mtus": others} if others else {})})
    return told
