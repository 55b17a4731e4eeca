# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which hosts connect to which, and on which ports (pure)."""

from __future__ import annotations

import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._doctor.records import IMAGES, MIGRATION, NBD, Peer

GROUPS = {"providers": "provider", "image_servers": "image_server", "homes": "home"}


class Node(t.NamedTuple):
    """A host as the inventory has it. ``ssh`` is the port of its SSH server."""

    name: str
    address: str
    ssh: int
    roles: t.FrozenSet[str]


def roles_of(name: str, groups: t.Mapping[str, t.Sequence[str]], image_server: str = "") -> t.FrozenSet[str]:
    """What a host is by its groups. :param image_server: the host that keeps the images, whatever its groups."""
    roles = {role for group, role in GROUPS.items() if name in groups.get(group, ())}
    return frozenset(roles | ({"image_server"} if name == image_server else set()))


def _ports(one: t.FrozenSet[str], other: Node) -> t.List[int]:
    """The ports of the other that a host with these roles connects to."""
    images = {"provider", "image_server"}
    ports = []
    if one & images and other.roles & images:
        ports = [IMAGES]
        if "provider" in one:
            ports.append(NBD)
        if "provider" in one and "provider" in other.roles:
            ports.append(MIGRATION)
    elif not one or not other.roles or "home" not in one | other.roles:
        return []
    return [other.ssh, *ports]


def peers_of(name: str, nodes: t.Sequence[Node]) -> t.List[Peer]:
    """The others that a host connects to."""
    mine = next((node.roles for node in nodes if node.name == name), frozenset())
    found: t.List[Peer] = []
    for other in nodes:
        ports = _ports(mine, other) if other.name != name else []
        if ports:
            found.append({"name": other.name, "address": other.address, "ports": ports})
    return found
