# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names and addresses of the overlay (pure)."""

from __future__ import annotations

import hashlib


def _bits(kind: str, value: str, bits: int) -> int:
    digest = hashlib.sha256(f"{kind}\0{value}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> (64 - bits)


def mac_prefix(network: str, site: str) -> str:
    """The first three octets of the MAC addresses of a network's machines at a site, for rules per prefix."""
    net = _bits("network", network, 12)
    # The low nibble of the first octet says unicast and locally administered (IEEE 802, 8.4); the network's bits lie around it
    octets = (net >> 8 << 4 | 0x2, net & 0xFF, _bits("site", site, 8))
    return ":".join(f"{octet:02x}" for octet in octets)


def mac_address(network: str, site: str, uuid: str) -> str:
    """The MAC address of a machine: the same for the same arguments, on every host.

    Locally administered and hierarchical: 12 bits of the network, 8 of the site, 24 of the machine.
    """
    tail = _bits("machine", uuid, 24)
    return mac_prefix(network, site) + "".join(f":{tail >> shift & 0xFF:02x}" for shift in (16, 8, 0))


def bridge_name(network: str) -> str:
    """The bridge of a network, on each of its hosts: 12 characters, as the kernel takes 15."""
    return f"vb{_bits('bridge', network, 40):010x}"
