# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Machines that come, go or move: what changes in the part of each host that they are on or that has a shortcut to them
(pure)."""

from __future__ import annotations

import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.domain_xml import guest_device

Part = t.Dict[str, t.Any]
Machine = t.Mapping[str, t.Any]


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
