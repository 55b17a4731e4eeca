# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a provider sees of one machine: its state, its addresses by who saw them, its network, and rules in the way."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import typing as t
import xml.etree.ElementTree as ET

from ansible_collections.virtuoso.grid.plugins.module_utils._doctor import rules
from ansible_collections.virtuoso.grid.plugins.module_utils._doctor.facts.firewall import rulesets
from ansible_collections.virtuoso.grid.plugins.module_utils._doctor.facts.ports import attempt
from ansible_collections.virtuoso.grid.plugins.module_utils._doctor.records import Attempt, MachineFacts, Source
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.connection import (
    connect,
    libvirt,
    state_word,
    translated,
)

_AGENT_PATIENCE = 3
_OVERLAY = re.compile(r"vb[0-9a-f]{10}")
"""The bridge of a network of the grid, as the room overlay names it."""


class Card(t.NamedTuple):
    """A machine's first network card."""

    mac: str
    network: str
    bridge: str


def first_card(xml: str) -> t.Optional[Card]:
    """The first network card of a domain (pure)."""
    for each in ET.fromstring(xml).iterfind("devices/interface"):
        mac, source = each.find("mac"), each.find("source")
        if mac is not None and source is not None:
            return Card(mac.get("address", "").lower(), source.get("network", ""), source.get("bridge", ""))
    return None


def network_mode(xml: str) -> str:
    """How a libvirt network forwards: nat, route, open, bridge, isolated, or another word of libvirt's (pure)."""
    forward = ET.fromstring(xml).find("forward")
    return "isolated" if forward is None else forward.get("mode", "nat")


def addresses_of(interfaces: object, mac: str) -> t.List[str]:
    """The addresses of the card with this MAC in what libvirt returns of a domain's interfaces; IPv6's own link-local
    ones are left out, which each card has (pure)."""
    found = []
    cards = interfaces.values() if isinstance(interfaces, t.Mapping) else ()
    for card in cards:
        if not isinstance(card, t.Mapping) or str(card.get("hwaddr") or "").lower() != mac:
            continue
        for entry in card.get("addrs") or []:
            with contextlib.suppress(ValueError, AttributeError):
                address = ipaddress.ip_address(entry.get("addr"))
                if not (address.version == 6 and address.is_link_local):
                    found.append(str(address))
    return found


def _seen(domain: t.Any, mac: str) -> t.List[Source]:
    """By whom addresses were seen. Sources that don't answer see nothing."""
    with contextlib.suppress(libvirt.libvirtError, AttributeError):
        domain.agentSetResponseTimeout(_AGENT_PATIENCE, 0)
    seen: t.List[Source] = []
    for word, source in (
        ("lease", libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE),
        ("agent", libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT),
        ("neighbour", libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_ARP),
    ):
        with contextlib.suppress(libvirt.libvirtError):
            addresses = addresses_of(domain.interfaceAddresses(source, 0), mac)
            if addresses:
                seen.append({"source": word, "addresses": addresses})
    return seen


def _where(conn: t.Any, card: Card) -> t.Tuple[str, str]:
    """The bridge that a card is on, and how its network forwards."""
    if not card.network:
        return card.bridge, "overlay" if _OVERLAY.fullmatch(card.bridge) else "bridge"
    try:
        network = conn.networkLookupByName(card.network)
        bridge = ""
        with contextlib.suppress(libvirt.libvirtError):
            bridge = network.bridgeName()
        return bridge, network_mode(network.XMLDesc(0))
    except libvirt.libvirtError:
        return "", "unknown"


def _sees_bridged() -> bool:
    """Whether the rules for routed packets see bridged ones as well (the module br_netfilter)."""
    try:
        with open("/proc/sys/net/bridge/bridge-nf-call-iptables", encoding="ascii") as file:
            return file.read().strip() == "1"
    except OSError:
        return False


def blocking(bridge: str, mode: str, addresses: t.Iterable[str], port: int) -> t.List[str]:
    """The rules of this host that may stop connections to a machine from elsewhere."""
    bridged = mode in ("overlay", "bridge") and not _sees_bridged()
    packets = [rules.Packet(bridge, address, port) for address in addresses]
    found: t.Dict[str, None] = {}
    for ruleset in rulesets():
        for packet in packets:
            found.update(dict.fromkeys(rules.stopping(ruleset, packet, bridged=bridged)))
    return list(found)


def look(uri: str, machine: str, ordered: t.Optional[str], port: int) -> MachineFacts:
    """What is to be seen of a machine here.

    :param machine: its uuid or name.
    :param ordered: the address that it was ordered with.
    :raises GridError: ``library_missing``, ``libvirt_unreachable``, ``libvirt_error``.
    """
    facts: MachineFacts = {
        "present": False,
        "state": "absent",
        "seen": [],
        "ordered": ordered,
        "network": "",
        "bridge": "",
        "mac": "",
        "mode": "unknown",
        "rules": [],
    }
    with connect(uri) as hypervisor, translated("look at the machine"):
        domain = next(
            (each for each in hypervisor.conn.listAllDomains(0) if machine in (each.UUIDString(), each.name())), None
        )
        if domain is None:
            return facts
        facts["present"], facts["state"] = True, state_word(domain.state()[0])
        card = first_card(domain.XMLDesc(0))
        if card is None:
            return facts
        bridge, mode = _where(hypervisor.conn, card)
        facts["network"], facts["bridge"] = card.network or card.bridge, bridge
        facts["mac"], facts["mode"] = card.mac, mode
        if facts["state"] == "running":
            facts["seen"] = _seen(domain, card.mac)
    addresses = [address for source in facts["seen"] for address in source["addresses"]]
    facts["rules"] = blocking(bridge, mode, dict.fromkeys(addresses or ([ordered] if ordered else [])), port)
    return facts


class Check(t.TypedDict):
    """What the module machine_check returns."""

    machine: t.Optional[MachineFacts]
    addresses: t.List[str]
    attempts: t.Dict[str, Attempt]


def check(uri: str, machine: t.Optional[str], ordered: t.Optional[str], others: t.Sequence[str], port: int) -> Check:
    """Look at the machine, where this is its provider, and try its addresses.

    :param machine: its uuid or name; none where this is not its provider.
    :param others: addresses to try beside those that are seen here.
    :raises GridError: ``invalid_port``, and those of :func:`look`.
    """
    if not 0 < port < 65536:
        raise GridError("invalid_port", f"there is no TCP port {port}", remedy="Give a number from 1 to 65535")
    facts = look(uri, machine, ordered, port) if machine else None
    seen = [address for source in facts["seen"] for address in source["addresses"]] if facts else []
    addresses = list(dict.fromkeys([*(seen or ([ordered] if ordered else [])), *others]))
    return {"machine": facts, "addresses": addresses, "attempts": {each: attempt(each, port) for each in addresses}}
