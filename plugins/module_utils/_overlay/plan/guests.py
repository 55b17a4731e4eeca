# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes hosts' parts when machines come, go or move (pure)."""

from __future__ import annotations

import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.domain_xml import guest_device
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.host.records import Forwarding, Guest, Part
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.plan.records import Machine


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
