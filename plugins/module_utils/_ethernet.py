# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Addresses and limits of Ethernet that machines and overlay share (pure)."""

from __future__ import annotations

import hashlib

MTU_RANGE = (576, 9216)
"""The least is what every IPv4 host takes (RFC 791)."""


def bits(kind: str, value: str, count: int) -> int:
    """So many bits of a digest: the same for the same text, on every host."""
    digest = hashlib.sha256(f"{kind}\0{value}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> (64 - count)


def mac_prefix(network: str, site: str) -> str:
    """The first three octets of the MAC addresses of a network's machines at a site, for rules per prefix."""
    net = bits("network", network, 12)
    # The low nibble of the first octet says unicast and locally administered (IEEE 802, 8.4); the network's bits lie
    # around it
    octets = (net >> 8 << 4 | 0x2, net & 0xFF, bits("site", site, 8))
    return ":".join(f"{octet:02x}" for octet in octets)


def mac_address(network: str, site: str, uuid: str) -> str:
    """The MAC address of a machine: the same for the same arguments, on every host.

    Locally administered and hierarchical: 12 bits of the network, 8 of the site, 24 of the machine.
    """
    tail = bits("machine", uuid, 24)
    return mac_prefix(network, site) + "".join(f":{tail >> shift & 0xFF:02x}" for shift in (16, 8, 0))


def card_mac(network: str, mac: str) -> str:
    """The MAC address of a machine's card on another network than its first, whose MAC address this is; it is kept when
    the machine moves, as that is."""
    return mac_prefix(network, "")[:5] + mac.lower()[5:]
