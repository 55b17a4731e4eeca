# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The records that a host's part of the overlay consists of, and what a host observes of its interfaces.

A part is JSON: the controller plans it, the module ``overlay`` writes it to a file, the program on the host reads it.
"""

from __future__ import annotations

import typing as t


class PartNetwork(t.TypedDict):
    """A network on this host: its bridge, its MTU in bytes, whether guests may send from others' MAC addresses."""

    name: str
    bridge: str
    mtu: int
    spoofing: bool


class MeshPeer(t.TypedDict):
    """Another host of an EVPN mesh; ``speaks``: there is a BGP session between it and this host."""

    name: str
    address: str
    speaks: bool


class _LinkEnd(t.TypedDict):
    device: str
    network: str
    peer: str
    role: str
    transport: str
    reason: str


class LinkEnd(_LinkEnd, total=False):
    """This host's end of a link.

    ``role``: see ``interfaces.ROLES``. ``peer``: the host at the other end, ``*`` for a mesh. ``reason``: why it has
    this transport. The other fields depend on the transport. Of ``vxlan`` and ``wireguard``: ``remote`` (address),
    ``vni``, and ``inner``, the peer's address inside WireGuard. Of ``ssh``: ``remote``, ``end`` (``client`` or
    ``server``), ``port`` of the peer's SSH server, public keys. Of ``evpn``: ``vni``, ``local`` (own address), ``asn``,
    ``peers``.
    """

    remote: str
    vni: int
    inner: str
    end: str
    port: int
    client_key: str
    host_key: str
    local: str
    asn: int
    peers: t.List[MeshPeer]


class Guest(t.TypedDict):
    """A machine's port on this host. ``mac`` is in lower case."""

    device: str
    mac: str
    network: str


class Forwarding(t.TypedDict):
    """A static forwarding entry: frames for ``mac`` leave by the shortcut ``device``."""

    device: str
    mac: str


class WireguardPeer(t.TypedDict):
    """A host with which this one has an encrypted link. ``address``: inside the tunnel. ``key``: its public key, empty
    while unknown."""

    name: str
    remote: str
    port: int
    address: str
    key: str


class Wireguard(t.TypedDict):
    """The WireGuard interface of this host; ``address`` is its own inside the tunnel, ``mtu`` in bytes."""

    device: str
    address: str
    port: int
    mtu: int
    peers: t.List[WireguardPeer]


class _Part(t.TypedDict):
    networks: t.List[PartNetwork]
    links: t.List[LinkEnd]
    guests: t.List[Guest]
    forwarding: t.List[Forwarding]
    peers: t.List[str]


class Part(_Part, total=False):
    """What a host is to have of the overlay. ``peers``: addresses from which VXLAN is admitted. ``wireguard`` is
    missing where no link needs it."""

    wireguard: Wireguard


class WantedInterface(t.TypedDict, total=False):
    """An interface that a part needs: ``kind`` and ``mtu`` always, ``master`` and ``role`` of links, the rest of VXLAN.

    ``encrypted``: it runs inside WireGuard.
    """

    kind: str
    mtu: int
    master: str
    role: str
    id: int
    remote: str
    local: str
    encrypted: bool


class Interface(t.TypedDict, total=False):
    """An interface as the kernel has it. ``role``: whether its port floods and learns, each ``on`` or ``off``; ``None``
    where it is no port. ``id``, ``remote`` and ``local`` only of VXLAN."""

    alias: t.Optional[str]
    kind: t.Optional[str]
    mtu: t.Optional[int]
    master: t.Optional[str]
    up: bool
    group: t.Optional[str]
    role: t.Optional[t.Tuple[str, ...]]
    id: t.Optional[int]
    remote: t.Optional[str]
    local: t.Optional[str]


class FdbEntry(t.TypedDict, total=False):
    """A forwarding entry of a bridge or a VXLAN device, as ``bridge -json fdb`` shows it. ``dst``: of VXLAN, the
    address of the host behind which the MAC address is."""

    ifname: str
    mac: str
    dst: str
    state: str
    master: str


class Session(t.TypedDict):
    """A BGP session: its state as FRR names it, and the seconds that it is up."""

    state: t.Optional[str]
    seconds: int
