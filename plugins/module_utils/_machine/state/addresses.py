# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The addresses of running machines that something has seen: agent, DHCP lease, neighbour table or home, in this
sequence; else the machine itself, asked by ARP for the address that it was ordered with."""

from __future__ import annotations

import concurrent.futures
import ipaddress
import typing as t
import xml.etree.ElementTree as ET

from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor import domain_xml, metadata
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.api import Connect, Domain, Network, Values
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.connection import libvirt
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.records import DomainModel, Metadata
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.state import arp

SOURCES = ("agent", "lease", "neighbour", "home")
# Seconds to wait for an agent that hangs
_AGENT_PATIENCE = 2
_AGENTS_AT_A_TIME = 8


class Found(t.NamedTuple):
    """Addresses, best first, and which of :data:`SOURCES` had them."""

    addresses: t.List[str]
    source: t.Optional[str]


NOWHERE = Found([], None)

Leases = t.Dict[str, t.List[str]]
"""Addresses by MAC address in lower case."""


def usable(addresses: t.Iterable[object]) -> list[str]:
    """The addresses that can be connected to, IPv4 first, each once (pure). Guests send these, so everything else is
    dropped."""
    good = {}
    for text in addresses:
        try:
            # A number would be taken for an address.
            address = ipaddress.ip_address(text if isinstance(text, str) else "")
        except ValueError:
            continue
        if not (address.is_loopback or address.is_link_local or address.is_unspecified or address.is_multicast):
            good[str(address)] = address.version
    return sorted(good, key=lambda text: good[text])


def of_interfaces(interfaces: Values | None, mac: str) -> list[str]:
    """The addresses of the card with this MAC address in libvirt's list of a domain's interfaces (pure)."""
    cards = [card for card in (interfaces or {}).values() if (card.get("hwaddr") or "").lower() == mac.lower()]
    return usable(entry.get("addr") for card in cards for entry in card.get("addrs") or [])


def of_homes(leases: t.Mapping[str, object]) -> dict[str, list[str]]:
    """Addresses by MAC address, from what the module ``lease_info`` returned on homes (pure)."""
    found = {
        str(mac).lower(): lease.get("address") if isinstance(lease, t.Mapping) else lease
        for mac, lease in leases.items()
    }
    return {mac: usable([address]) for mac, address in found.items()}


def ordered(values: Metadata | None) -> str | None:
    """The address that a machine was ordered with, without its prefix; whether it has it is another matter (pure)."""
    address = values["address"] if values is not None else None
    return next(iter(usable([str(address.get("ip", "")).partition("/")[0]])), None) if address else None


def _question(tree: ET.Element, mac: str) -> arp.Question | None:
    """What to ask a machine that nothing has seen: whether it has the address that it was ordered with (pure).

    :param tree: its live XML, which names the host's end of its card.
    """
    address = ordered(metadata.read(tree))
    device = domain_xml.card_device(tree)
    return arp.Question(device, mac.lower(), address) if address and device else None


class Finder:
    """Looks up the addresses of many running machines on one connection."""

    def __init__(self, conn: Connect, leases: t.Mapping[str, object] | None = None) -> None:
        """
        :param leases: by MAC address, as the module ``lease_info`` returns them on homes.
        """
        self._conn = conn
        self._at_home = of_homes(leases or {})
        self._networks: dict[str, Network] = {}

    def _leases(self, network: str) -> dict[str, list[str]]:
        """Addresses by MAC of a network's DHCP server, the newest lease first."""
        try:
            if network not in self._networks:
                self._networks[network] = self._conn.networkLookupByName(network)
            leases = self._networks[network].DHCPLeases()
        except libvirt.libvirtError:
            # Not every network has libvirt's DHCP server.
            return {}
        by_mac: dict[str, list[str]] = {}
        for lease in sorted(leases, key=lambda lease: lease.get("expirytime") or 0, reverse=True):
            by_mac.setdefault((lease.get("mac") or "").lower(), []).append(str(lease.get("ipaddr")))
        return {mac: usable(addresses) for mac, addresses in by_mac.items()}

    @staticmethod
    def _interfaces(domain: Domain, source: int, mac: str) -> list[str]:
        try:
            return of_interfaces(domain.interfaceAddresses(source, 0), mac)
        except libvirt.libvirtError:
            return []

    def _ask_agent(self, domain: Domain, tree: ET.Element, mac: str) -> list[str]:
        if not domain_xml.agent_connected(tree):
            return []
        try:
            domain.agentSetResponseTimeout(_AGENT_PATIENCE, 0)
        except (libvirt.libvirtError, AttributeError):
            return []
        return self._interfaces(domain, libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT, mac)

    def _find(self, domain: Domain, tree: ET.Element, model: DomainModel, leases: t.Mapping[str, Leases]) -> Found:
        """The addresses of one machine, from the first source that has any."""
        mac = model["mac"]
        if not mac:
            return NOWHERE
        address = mac.lower()
        arp: int = libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_ARP
        sources: tuple[tuple[str, t.Callable[[], list[str]]], ...] = (
            ("agent", lambda: self._ask_agent(domain, tree, mac)),
            ("lease", lambda: leases.get(model["network"] or "", {}).get(address, [])),
            ("neighbour", lambda: self._interfaces(domain, arp, mac)),
            ("home", lambda: self._at_home.get(address, [])),
        )
        for source, find in sources:
            addresses = find()
            if addresses:
                return Found(addresses, source)
        return NOWHERE

    def find(self, machines: t.Sequence[tuple[Domain, ET.Element]]) -> list[Found]:
        """The addresses of each of ``machines``: pairs of a running domain and its live XML tree."""
        models = [domain_xml.read(tree) for dummy, tree in machines]
        leases = {network: self._leases(network) for network in {model["network"] for model in models} if network}

        def one(position: int) -> Found:
            return self._find(*machines[position], models[position], leases)

        with concurrent.futures.ThreadPoolExecutor(_AGENTS_AT_A_TIME) as pool:
            found = list(pool.map(one, range(len(machines))))
        return self._ask_unseen(found, [(tree, model["mac"]) for (dummy, tree), model in zip(machines, models)])

    @staticmethod
    def _ask_unseen(found: list[Found], cards: t.Sequence[tuple[ET.Element, str | None]]) -> list[Found]:
        """``found``, with the ordered address of each machine that had none and answers for it now.

        :param cards: of the same machines, live XML tree and MAC address.
        """
        questions = {
            position: _question(tree, mac)
            for position, (tree, mac) in enumerate(cards)
            if mac and not found[position].addresses
        }
        asked = {position: question for position, question in questions.items() if question is not None}
        answered = arp.ask(asked.values())
        return [
            Found([asked[position].address], "neighbour") if asked.get(position) in answered else each
            for position, each in enumerate(found)
        ]
