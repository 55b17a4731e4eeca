# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which addresses of a machine are believed (pure).

Ansible logs in at the address that is reported. What a DHCP server has given, and what was ordered, nobody in a guest
can choose. What its agent says, and what the host's neighbour table learned from its frames, is the guest's own word:
it counts within the prefixes of the machine's network, and never for an address that somebody else has.
"""

from __future__ import annotations

import ipaddress
import json
import typing as t
import xml.etree.ElementTree as ET

Prefix = t.Union[ipaddress.IPv4Network, ipaddress.IPv6Network]

SOURCES = ("lease", "home", "neighbour", "agent")
"""Who may know an address, who is believed first."""

OWN_WORD = ("neighbour", "agent")
"""Those who repeat what the guest says."""


class Found(t.NamedTuple):
    """Addresses, best first, and which of :data:`SOURCES` had them."""

    addresses: t.List[str]
    source: t.Optional[str]
    refused: t.Tuple[str, ...] = ()
    """what the guest claims and is not believed"""


NOWHERE = Found([], None)


class Evidence(t.NamedTuple):
    """What is known of a machine's addresses."""

    said: t.Mapping[str, t.Sequence[str]]
    """addresses by source, each as :func:`usable` returns them"""
    ordered: t.Optional[str]
    """the address that it was ordered with"""
    prefixes: t.Sequence[Prefix]
    """those of its network"""
    taken: t.Container[str]
    """addresses of others: of the host itself, and of other machines"""


def usable(addresses: t.Iterable[object]) -> list[str]:
    """The addresses that can be connected to from another host, IPv4 first, each once. Guests send these, so everything
    else is dropped; also an IPv4 address in an IPv6 one, which would pass as another one than it is (RFC 4291, 2.5.5).
    """
    good = {}
    for text in addresses:
        try:
            # A number would be taken for an address.
            address = ipaddress.ip_address(text if isinstance(text, str) else "")
        except ValueError:
            continue
        if not _special(address):
            good[str(address)] = address.version
    return sorted(good, key=lambda text: good[text])


def _special(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address):
        # Python 3.9 knows the zone after %, which names a card of whoever connects.
        if address.ipv4_mapped or address.sixtofour or address.teredo or getattr(address, "scope_id", None):
            return True
        if int(address) >> 32 == 0 or int(address) >> 32 == 0x64FF9B << 64:
            return True
    elif int(address) >> 24 == 0:
        return True
    return (
        address.is_loopback
        or address.is_link_local
        or address.is_unspecified
        or address.is_multicast
        or address.is_reserved
    )


def choose(evidence: Evidence) -> Found:
    """The addresses to report, from the first source that has any."""
    for source in OWN_WORD:
        if evidence.ordered is not None and evidence.ordered in evidence.said.get(source, ()):
            return Found([evidence.ordered], source)
    refused: list[str] = []
    for source in SOURCES:
        said = evidence.said.get(source, ())
        believed = [address for address in said if source not in OWN_WORD or _is_of(address, evidence)]
        if believed:
            return Found(believed, source)
        refused += said
    return Found([], None, tuple(dict.fromkeys(refused)))


def _is_of(address: str, evidence: Evidence) -> bool:
    """Whether the address is one of the machine's network that nobody else has."""
    if address in evidence.taken:
        return False
    value = ipaddress.ip_address(address)
    return any(value in prefix for prefix in evidence.prefixes)


def network_prefixes(definition: str) -> list[Prefix]:
    """The prefixes of a libvirt network, from its XML (https://libvirt.org/formatnetwork.html)."""
    found = []
    for element in ET.fromstring(definition).iter("ip"):
        length = element.get("prefix") or element.get("netmask")
        found += parse_prefixes([f"{element.get('address')}/{length}" if length else element.get("address")])
    return found


def network_bridge(definition: str) -> str | None:
    """The bridge of a libvirt network, from its XML."""
    bridge = ET.fromstring(definition).find("bridge")
    return bridge.get("name") if bridge is not None else None


def parse_prefixes(values: t.Iterable[object]) -> list[Prefix]:
    """The prefixes among texts such as ``192.0.2.7/24``; what is none is left out."""
    found: list[Prefix] = []
    for value in values:
        try:
            found.append(ipaddress.ip_network(value if isinstance(value, str) else "", strict=False))
        except ValueError:
            continue
    return found


def host_addresses(said: str) -> dict[str, list[str]]:
    """The addresses of the host with their prefixes, by device, of what ``ip -j addr show`` says."""
    try:
        devices = json.loads(said)
    except ValueError:
        return {}
    return {
        str(device.get("ifname")): [
            f"{entry.get('local')}/{entry.get('prefixlen')}" for entry in device.get("addr_info") or []
        ]
        for device in devices
        if isinstance(device, dict)
    }
