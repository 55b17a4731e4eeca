# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Machines that come, go or move, in the parts of the hosts they are on and of those that have a shortcut to them (pure)."""

from __future__ import annotations

import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._overlay import model
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.plan import Part, forwarding_of


def mac_of(machine: t.Mapping[str, t.Any]) -> str:
    """The machine's MAC address: its own, or the one that it will have."""
    return str(machine.get("mac") or model.mac_address(machine["network"], machine.get("site") or "site", machine["uuid"])).lower()


def overlay_guests(
    parts: t.Mapping[str, Part], machines: t.Sequence[t.Mapping[str, t.Any]], gone: t.Collection[str] = ()
) -> dict[str, Part]:
    """The parts with these machines, each where its ``provider`` is and nowhere else.

    :param parts: the parts of the hosts as they are. :param machines: ``provider``, ``network``, and ``mac`` or ``site`` and ``uuid``. :param gone: MAC addresses.
    """
    told = {mac_of(machine): machine for machine in machines if machine.get("provider") and machine.get("network")}
    guests: dict[str, list[Part]] = {}
    for host, part in parts.items():
        here = {network["name"] for network in part.get("networks") or []}
        kept = [guest for guest in part.get("guests") or [] if guest["mac"] not in told and guest["mac"] not in gone]
        new = [
            {"device": model.guest_device(mac), "mac": mac, "network": machine["network"]}
            for mac, machine in told.items()
            if machine["provider"] == host and machine["network"] in here
        ]
        guests[host] = sorted([*kept, *new], key=lambda guest: guest["mac"])
    return {
        host: {**part, "guests": guests[host], "forwarding": forwarding_of(part.get("links") or [], guests)} for host, part in parts.items()
    }
