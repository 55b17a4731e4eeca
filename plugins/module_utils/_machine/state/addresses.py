# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The addresses of running machines that something has seen: DHCP lease, home, neighbour table or agent; else the
machine itself, asked by ARP for the address that it was ordered with. ``evidence`` says which are believed."""

from __future__ import annotations

import concurrent.futures
import contextlib
import typing as t
import xml.etree.ElementTree as ET

from ansible_collections.virtuoso.grid.plugins.module_utils._command import command
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor import domain_xml, metadata
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.api import Connect, Domain, Network, Values
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.connection import libvirt
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.records import Metadata
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.state import arp, evidence
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.state.evidence import (
    Evidence,
    Found,
    Prefix,
    usable,
)

# Seconds to wait for an agent that hangs
_AGENT_PATIENCE = 2
_AGENTS_AT_A_TIME = 8

Leases = t.Dict[str, t.List[str]]
"""Addresses by MAC address in lower case."""


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

    def __init__(
        self,
        conn: Connect,
        leases: t.Mapping[str, object] | None = None,
        prefixes: t.Mapping[str, t.Iterable[object]] | None = None,
    ) -> None:
        """
        :param leases: by MAC address, as the module ``lease_info`` returns them on homes.
        :param prefixes: of networks whose prefixes libvirt doesn't know, by network.
        """
        self._conn = conn
        self._at_home = of_homes(leases or {})
        self._told = prefixes or {}
        self._networks: dict[str, Network | None] = {}

    def _network(self, name: str) -> Network | None:
        if name not in self._networks:
            try:
                self._networks[name] = self._conn.networkLookupByName(name)
            except libvirt.libvirtError:
                self._networks[name] = None
        return self._networks[name]

    def leases(self, network: str) -> Leases:
        """Addresses by MAC address of a network's DHCP server, the newest lease first."""
        known = self._network(network)
        try:
            leases = known.DHCPLeases() if known is not None else []
        except libvirt.libvirtError:
            # Not every network has libvirt's DHCP server.
            return {}
        by_mac: dict[str, list[str]] = {}
        for lease in sorted(leases, key=lambda lease: lease.get("expirytime") or 0, reverse=True):
            by_mac.setdefault((lease.get("mac") or "").lower(), []).append(str(lease.get("ipaddr")))
        return {mac: usable(addresses) for mac, addresses in by_mac.items()}

    def _prefixes(self, network: str, own: t.Mapping[str, t.Sequence[str]]) -> list[Prefix]:
        """The prefixes of a network: as libvirt or the host's bridge has them, and as they were told.

        :param own: the host's addresses by device.
        """
        found = evidence.parse_prefixes(self._told.get(network) or ())
        known = self._network(network)
        if known is not None:
            with contextlib.suppress(libvirt.libvirtError):
                definition = known.XMLDesc(0)
                found += evidence.network_prefixes(definition)
                found += evidence.parse_prefixes(own.get(evidence.network_bridge(definition) or "", ()))
        return found

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

    def _said(self, domain: Domain, tree: ET.Element, mac: str, leases: Leases) -> dict[str, list[str]]:
        """What each source says of one machine."""
        said = {"lease": leases.get(mac, []), "home": self._at_home.get(mac, [])}
        # Nobody needs a guest's own word where a DHCP server has given it an address.
        if not any(said.values()) or ordered(metadata.read(tree)) is not None:
            said["neighbour"] = self._interfaces(domain, libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_ARP, mac)
            said["agent"] = self._ask_agent(domain, tree, mac)
        return said

    def find(self, machines: t.Sequence[tuple[Domain, ET.Element]]) -> list[Found]:
        """The addresses of each of ``machines``: pairs of a running domain and its live XML tree."""
        models = [domain_xml.read(tree) for dummy, tree in machines]
        macs = [(model["mac"] or "").lower() for model in models]
        networks = {model["network"] for model in models if model["network"]}
        own = _host_addresses()
        prefixes = {network: self._prefixes(network, own) for network in networks}
        leases = {network: self.leases(network) for network in networks}
        wanted = [ordered(metadata.read(tree)) for dummy, tree in machines]
        ours = {address.partition("/")[0] for addresses in own.values() for address in addresses}

        def one(position: int) -> Found:
            domain, tree = machines[position]
            network, mac = models[position]["network"] or "", macs[position]
            if not mac:
                return evidence.NOWHERE
            others = {address for other, held in leases.get(network, {}).items() if other != mac for address in held}
            others.update(address for at, address in enumerate(wanted) if at != position and address)
            return evidence.choose(
                Evidence(
                    said=self._said(domain, tree, mac, leases.get(network, {})),
                    ordered=wanted[position],
                    prefixes=[*prefixes.get(network, ()), *_ordered_prefix(tree)],
                    taken=ours | others,
                )
            )

        with concurrent.futures.ThreadPoolExecutor(_AGENTS_AT_A_TIME) as pool:
            found = list(pool.map(one, range(len(machines))))
        return self._ask_unseen(found, [(tree, mac) for (dummy, tree), mac in zip(machines, macs)])

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


def _ordered_prefix(tree: ET.Element) -> list[Prefix]:
    """The prefix of the static address that a machine was ordered with."""
    values = metadata.read(tree)
    address = values["address"] if values is not None else None
    ip = str(address.get("ip", "")) if address else ""
    return evidence.parse_prefixes([ip]) if "/" in ip else []


def _host_addresses() -> dict[str, list[str]]:
    """The host's addresses with their prefixes, by device."""
    try:
        return evidence.host_addresses(command(["ip", "-j", "addr", "show"], timeout=10))
    except GridError:
        return {}
