# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The groups of interfaces by which the rules know most ports at once: to compare a number takes less than to find a
name in a set (pure).

Whoever isn't in a group is found by his name, and is slower for it, nothing else: a machine's port that was made
outside of a play, until the next one.
"""

from __future__ import annotations

import collections
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.host import evpn
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.host.interfaces import Link, Part

ALL = 0xFF000000
"""The part of the number that all have in common."""
LINKS = 0x76000000
"""Of links that exchange frames with all ports of their bridge. ip-link(8): numbers that nobody has a name for."""
PORTS = LINKS + 1
"""Of homes' ports, and of machines' that can't have a group of their own."""


def own(guests: t.Sequence[Part]) -> t.Dict[str, int]:
    """The group of each machine's port, by device: one of its own, from the 24 bits of its MAC address that are the
    machine's."""
    tails = {guest["device"]: LINKS | int(guest["mac"].replace(":", "")[-6:], 16) for guest in guests}
    often = collections.Counter(tails.values())
    return {device: group if group > PORTS and often[group] == 1 else PORTS for device, group in tails.items()}


def apart(link: Part) -> bool:
    """Whether a link doesn't exchange frames with every port of its bridge.

    What comes over a shortcut is for machines here: one that isn't heard of for a while is unknown, and flooded on, it
    would come back to the shortcut. And a mesh, whatever its role is while a network changes over, has brought to all
    what came by it: links beside it must not bring it again.
    """
    return link["role"] == "shortcut" or link["transport"] == evpn.KIND


def wanted(part: Part) -> t.Dict[str, int]:
    """The group of each port that is to be in one."""
    return {
        **{link["device"]: LINKS for link in part["links"] if not apart(link)},
        **own(part["guests"]),
    }


def _is_ours(group: str | None) -> bool:
    return group is not None and group.isdecimal() and int(group) & ALL == LINKS


def steps(part: Part, there: t.Mapping[str, Link], made: t.Container[str]) -> t.Dict[str, t.List[str]]:
    """Lines for ``ip -batch``: ``leave`` before the rules are loaded, ``join`` when they are, and the interfaces are
    made.

    :param there: all interfaces. :param made: links that are made or made anew, which are in no group then.
    """
    to = wanted(part)
    ours = {
        name: have["group"] for name, have in there.items() if _is_ours(have.get("group")) and not name.startswith("vh")
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
