# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where machines can be reached: their addresses, from agent, DHCP lease, neighbour table, their home, or their order."""

from __future__ import annotations

import concurrent.futures
import ipaddress
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor import domain_xml, metadata
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.connection import libvirt

SOURCES = ("agent", "lease", "neighbour", "home", "ordered")
# Seconds that a hanging agent may hold up the others.
_AGENT_PATIENCE = 2
_AGENTS_AT_A_TIME = 8


class Found(t.NamedTuple):
    """Addresses, best first, and which of :data:`SOURCES` knew them."""

    addresses: t.List[str]
    source: t.Optional[str]


NOWHERE = Found([], None)


def usable(addresses: t.Iterable[t.Any]) -> list[str]:
    """What can be connected to, IPv4 first, each once. Guests send these: whatever is no address is dropped (pure)."""
    good = {}
    for text in addresses:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            continue
        if not (address.is_loopback or address.is_link_local or address.is_unspecified or address.is_multicast):
            good[str(address)] = address.version
    return sorted(good, key=lambda text: good[text])


def of_interfaces(interfaces: t.Mapping[str, t.Any] | None, mac: str) -> list[str]:
    """The addresses of the network card with this MAC in what libvirt returns of a domain's interfaces (pure)."""
    cards = [card for card in (interfaces or {}).values() if (card.get("hwaddr") or "").lower() == mac.lower()]
    return usable(entry.get("addr") for card in cards for entry in card.get("addrs") or [])


def of_homes(leases: t.Mapping[str, t.Any]) -> dict[str, list[str]]:
    """Addresses by MAC address, of what the module ``lease_info`` returned on a home (pure)."""
    told = {
        str(mac).lower(): lease.get("address") if isinstance(lease, t.Mapping) else lease
        for mac, lease in leases.items()
    }
    return {mac: usable([address]) for mac, address in told.items()}


def ordered(values: metadata.Metadata | None) -> list[str]:
    """The address that a machine was ordered with: nobody has seen it, and yet it is its own (pure)."""
    address = (values or {}).get("address") or {}
    return usable([str(address.get("ip", "")).partition("/")[0]])


class Finder:
    """Looks up the addresses of many running machines on one connection."""

    def __init__(self, conn: t.Any, leases: t.Mapping[str, t.Any] | None = None) -> None:
        """
        :param leases: what homes say: addresses by MAC address, as the module ``lease_info`` returns them.
        """
        self._conn = conn
        self._at_home = of_homes(leases or {})
        self._networks: dict[str, t.Any] = {}

    def _leases(self, network: str) -> dict[str, list[str]]:
        """Addresses by MAC of a network's DHCP server, the newest lease first."""
        try:
            if network not in self._networks:
                self._networks[network] = self._conn.networkLookupByName(network)
            leases = self._networks[network].DHCPLeases()
        except libvirt.libvirtError:
            # Not every network has a DHCP server of libvirt's.
            return {}
        by_mac: dict[str, list[str]] = {}
        for lease in sorted(leases, key=lambda lease: lease.get("expirytime") or 0, reverse=True):
            by_mac.setdefault((lease.get("mac") or "").lower(), []).append(lease.get("ipaddr"))
        return {mac: usable(addresses) for mac, addresses in by_mac.items()}

    @staticmethod
    def _interfaces(domain: t.Any, source: int, mac: str) -> list[str]:
        try:
            return of_interfaces(domain.interfaceAddresses(source, 0), mac)
        except libvirt.libvirtError:
            return []

    def _ask_agent(self, domain: t.Any, tree: t.Any, mac: str) -> list[str]:
        if not domain_xml.agent_connected(tree):
            return []
        try:
            domain.agentSetResponseTimeout(_AGENT_PATIENCE, 0)
        except (libvirt.libvirtError, AttributeError):
            return []
        return self._interfaces(domain, libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT, mac)

    def find(self, machines: t.Sequence[tuple[t.Any, t.Any]]) -> list[Found]:
        """The addresses of each of ``machines``: pairs of a running domain and its live XML tree."""
        models = [domain_xml.read(tree) for dummy, tree in machines]
        leases = {network: self._leases(network) for network in {model["network"] for model in models} if network}

        def one(position: int) -> Found:
            (domain, tree), model = machines[position], models[position]
            mac = model["mac"]
            if not mac:
                return NOWHERE
            for source, found in (
                ("agent", lambda: self._ask_agent(domain, tree, mac)),
                ("lease", lambda: leases.get(model["network"], {}).get(mac.lower(), [])),
                ("neighbour", lambda: self._interfaces(domain, libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_ARP, mac)),
                ("home", lambda: self._at_home.get(mac.lower(), [])),
                ("ordered", lambda: ordered(metadata.read(tree))),
            ):
                addresses = found()
                if addresses:
                    return Found(addresses, source)
            return NOWHERE

        with concurrent.futures.ThreadPoolExecutor(_AGENTS_AT_A_TIME) as pool:
            return list(pool.map(one, range(len(machines))))
