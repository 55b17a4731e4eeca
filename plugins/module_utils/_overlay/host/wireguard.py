# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The WireGuard interface of a host: its address, settings and peers (pure).

A host has one such interface. The VXLAN of its encrypted links runs inside it, over IPv6.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.host.interfaces import WIREGUARD as DEVICE
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.host.records import (
    LinkEnd,
    Part,
    Wireguard,
    WireguardPeer,
)

PORT = 51820
"""The usual UDP port of WireGuard."""
INSIDE = 70
"""Bytes of each frame that VXLAN over IPv6 takes of the tunnel's MTU."""
_NETWORK = int(ipaddress.IPv6Address("fd76:6972:7475::"))
"""The collection's unique local prefix (RFC 4193); it is used inside the tunnels only."""
_KEY = re.compile(r"[A-Za-z0-9+/]{43}=", re.ASCII)


def address(host: str) -> str:
    """A host's address inside the tunnel, computed from its name: the same everywhere."""
    return str(ipaddress.IPv6Address(_NETWORK + int.from_bytes(hashlib.sha256(host.encode()).digest()[:8], "big")))


def settings(part: Part) -> str:
    """The text for ``wg setconf``, without the private key, which stays in its file."""
    own = part["wireguard"]
    lines = ["[Interface]", f"ListenPort = {own['port']}"]
    for peer in sorted(own["peers"], key=lambda each: each["address"]):
        if not _KEY.fullmatch(peer["key"] or ""):
            continue
        lines += [
            "[Peer]",
            f"PublicKey = {peer['key']}",
            f"Endpoint = {peer['remote']}:{peer['port']}",
            f"AllowedIPs = {peer['address']}/128",
            "PersistentKeepalive = 5",
        ]
    return "\n".join(lines) + "\n"


def of_links(host: str, links: t.Sequence[LinkEnd], mtu: int) -> Wireguard | None:
    """A host's WireGuard interface, or ``None`` where no link needs it. The peers' keys are filled in later.

    :param mtu: the largest of the host's networks, in bytes.
    """
    peers = {link["peer"]: link for link in links if link["transport"] == "wireguard"}
    if not peers:
        return None
    found: t.List[WireguardPeer] = [
        {"name": name, "remote": link["remote"], "port": PORT, "address": address(name), "key": ""}
        for name, link in sorted(peers.items())
    ]
    return {"device": DEVICE, "address": address(host), "port": PORT, "mtu": mtu + INSIDE, "peers": found}
