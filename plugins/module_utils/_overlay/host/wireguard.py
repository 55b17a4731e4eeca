# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""WireGuard between hosts: one interface a host, inside which the VXLAN of its encrypted links speaks IPv6 (pure)."""

from __future__ import annotations

import hashlib
import ipaddress
import re
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.host.interfaces import WIREGUARD as DEVICE
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.host.interfaces import Part

PORT = 51820
"""WireGuard's usual one."""
INSIDE = 70
"""Bytes that VXLAN over IPv6 takes of the tunnel's MTU."""
_NETWORK = int(ipaddress.IPv6Address("fd76:6972:7475::"))
"""A unique local prefix (RFC 4193) of the collection's own; it is never seen outside the tunnel."""
_KEY = re.compile(r"[A-Za-z0-9+/]{43}=", re.ASCII)


def address(host: str) -> str:
    """A host's own address inside the tunnel: the same wherever it is computed."""
    return str(ipaddress.IPv6Address(_NETWORK + int.from_bytes(hashlib.sha256(host.encode()).digest()[:8], "big")))


def settings(part: Part) -> str:
    """What ``wg setconf`` is to load, the private key excepted, which stays in its file."""
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


def of_links(host: str, links: t.Sequence[Part]) -> t.Dict[str, t.Any] | None:
    """A host's WireGuard, where one of its links needs it; keys are filled in later."""
    peers = {link["peer"]: link for link in links if link["transport"] == "wireguard"}
    if not peers:
        return None
    told = [
        {"name": name, "remote": link["remote"], "port": PORT, "address": address(name), "key": ""}
        for name, link in sorted(peers.items())
    ]
    return {"device": DEVICE, "address": address(host), "port": PORT, "peers": told}
