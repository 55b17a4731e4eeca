# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""MAC addresses of machines, MTU limits: what the rooms of machines and of the overlay must compute alike (pure)."""

from __future__ import annotations

import hashlib

MTU_RANGE = (576, 9216)
"""Bytes. Every IPv4 host accepts packets of the least (RFC 791)."""


def bits(kind: str, value: str, count: int) -> int:
    """The first ``count`` bits of a digest of ``value``: the same for the same arguments, on every host.

    :param kind: what the value is; values of two kinds have different digests.
    """
    digest = hashlib.sha256(f"{kind}\0{value}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> (64 - count)


def mac_prefix(network: str, site: str) -> str:
    """The first three octets of the MAC addresses of a network's machines at a site; rules can match on them."""
    net = bits("network", network, 12)
    # The first octet's low nibble says unicast and locally administered (IEEE 802, 8.4); the network's bits surround it
    octets = (net >> 8 << 4 | 0x2, net & 0xFF, bits("site", site, 8))
    return ":".join(f"{octet:02x}" for octet in octets)


def mac_address(network: str, site: str, uuid: str) -> str:
    """The MAC address of a machine: the same for the same arguments, on every host.

    Locally administered and hierarchical: 12 bits of the network, 8 of the site, 24 of the machine.
    """
    tail = bits("machine", uuid, 24)
    return mac_prefix(network, site) + "".join(f":{tail >> shift & 0xFF:02x}" for shift in (16, 8, 0))


def card_mac(network: str, mac: str) -> str:
    """The MAC address of a machine's card on a further network. It doesn't change when the machine moves.

    :param mac: that of the machine's card on its first network.
    """
    return mac_prefix(network, "")[:5] + mac.lower()[5:]
