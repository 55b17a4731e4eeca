# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The interface groups by which the rules recognise most ports: comparing a number is faster than a set lookup (pure).

A port that is in no group yet, such as that of a machine that was started outside of a play, is found by its name. That
is slower, and nothing else changes; the next play puts it into its group.
"""

from __future__ import annotations

import collections
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.host import evpn
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.host.records import Guest, Interface, LinkEnd, Part

ALL = 0xFF000000
"""The mask of the bits that all our groups share."""
LINKS = 0x76000000
"""The group of links that exchange frames with all ports of their bridge. Nobody names such high numbers, see
ip-link(8)."""
PORTS = LINKS + 1
"""The group of homes' ports, and of machines' ports that can't have a group of their own."""


def own(guests: t.Sequence[Guest]) -> t.Dict[str, int]:
    """The group of each machine's port, by device. It is made from the last 24 bits of its MAC address, where these are
    different from those of the others."""
    tails = {guest["device"]: LINKS | int(guest["mac"].replace(":", "")[-6:], 16) for guest in guests}
    often = collections.Counter(tails.values())
    return {device: group if group > PORTS and often[group] == 1 else PORTS for device, group in tails.items()}


def apart(link: LinkEnd) -> bool:
    """Whether a link must not exchange frames with every port of its bridge.

    A frame from a shortcut is for a machine here. If the bridge has forgotten that machine it would flood the frame,
    and the frame would come back to the shortcut. A mesh has brought a frame to all its hosts already, whatever its
    role is while a network changes; the links beside it must not forward the frame again.
    """
    return link["role"] == "shortcut" or link["transport"] == evpn.KIND


def wanted(part: Part) -> t.Dict[str, int]:
    """The group of each port that must be in one."""
    return {
        **{link["device"]: LINKS for link in part["links"] if not apart(link)},
        **own(part["guests"]),
    }


def _is_ours(group: str | None) -> bool:
    return group is not None and group.isdecimal() and int(group) & ALL == LINKS


def steps(part: Part, there: t.Mapping[str, Interface], made: t.Container[str]) -> t.Dict[str, t.List[str]]:
    """The lines for ``ip -batch``: ``leave`` for before the rules are loaded, ``join`` for when rules and interfaces
    are there.

    :param there: all interfaces. :param made: names of links that are made or remade, and so are in no group yet.
    """
    to = wanted(part)
    ours = {
        name: have.get("group")
        for name, have in there.items()
        if _is_ours(have.get("group")) and not name.startswith("vh")
    }
    ready = {name for name in to if name in there or name in made}
    return {
        "leave": [f"link set dev {name} group 0" for name, group in sorted(ours.items()) if str(to.get(name)) != group],
        "join": [
            f"link set dev {name} group {to[name]}"
            for name in sorted(ready)
            if name in made or there[name].get("group") != str(to[name])
        ],
    }
