# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The address in an order (pure): given by DHCP, or static and set by cloud-init at the machine's first start.

The addresses that machines are seen to have are in ``state/addresses``.
"""

from __future__ import annotations

import ipaddress
import re
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.records import Address
from ansible_collections.virtuoso.grid.plugins.module_utils._names import shorten

METHODS = ("dhcp", "static")

ADDRESS_OPTIONS: dict[str, object] = {
    "method": {"type": "str", "default": "dhcp", "choices": list(METHODS)},
    "ip": {"type": "str"},
    "gateway": {"type": "str"},
    "nameservers": {"type": "list", "elements": "str", "default": []},
    "search": {"type": "list", "elements": "str", "default": []},
}
"""The field ``address`` of an order, as Ansible argument specification."""

_DOMAIN = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*", re.ASCII
)


def _refuse(msg: str, remedy: str) -> t.NoReturn:
    raise GridError("invalid_address", msg, remedy=remedy)


def _host(value: str, what: str) -> str:
    try:
        return str(ipaddress.IPv4Address(value))
    except ValueError:
        _refuse(f"{shorten(value)} is not an IPv4 address, as {what} is to be one", "Give it as 192.0.2.1")


def _interface(value: str) -> ipaddress.IPv4Interface:
    try:
        return ipaddress.IPv4Interface(value)
    except ValueError:
        _refuse(
            f"{shorten(value)} is not an IPv4 address",
            "Give it as 192.0.2.7, or for method static with its prefix, as 192.0.2.7/24",
        )


class GivenAddress(t.TypedDict, total=False):
    """An order's ``address`` as :data:`ADDRESS_OPTIONS` types it; fields that are not given may be ``None``."""

    method: str
    ip: t.Optional[str]
    gateway: t.Optional[str]
    nameservers: t.Optional[t.List[str]]
    search: t.Optional[t.List[str]]


def parse_address(given: GivenAddress | None) -> Address | None:
    """An order's ``address`` in its canonical form; ``None`` where it asks for nothing but DHCP.

    :raises GridError: ``invalid_address``.
    """
    if not given:
        return None
    ip = given.get("ip")
    if given.get("method") != "static":
        values: t.Mapping[str, object] = given
        odd = [field for field in ("gateway", "nameservers", "search") if values.get(field)]
        if odd:
            _refuse(
                f"{', '.join(odd)} can't be ordered with DHCP, whose server gives them",
                "Leave them out, or order method: static",
            )
        return {"method": "dhcp", "ip": str(_interface(ip).ip)} if ip else None
    if not ip or "/" not in ip:
        _refuse("a static address needs ip with its prefix", "Give it as 192.0.2.7/24")
    return _static(given, _interface(ip))


def _static(given: GivenAddress, own: ipaddress.IPv4Interface) -> Address:
    if own.network.prefixlen < 31 and own.ip in (own.network.network_address, own.network.broadcast_address):
        _refuse(f"{own} is the network itself, or its broadcast address", "Give an address between them")
    address: Address = {"method": "static", "ip": str(own)}
    gateway, nameservers = given.get("gateway"), given.get("nameservers")
    if gateway:
        address["gateway"] = _host(gateway, "the gateway")
        if ipaddress.IPv4Address(address["gateway"]) not in own.network or address["gateway"] == str(own.ip):
            _refuse(
                f"the gateway {address['gateway']} is not another address on {own.network}",
                "Give a gateway on the machine's own network",
            )
    if nameservers:
        address["nameservers"] = [_host(server, "each name server") for server in nameservers]
    for written in given.get("search") or ():
        domain = written.lower()
        if not _DOMAIN.fullmatch(domain):
            _refuse(f"{shorten(domain)} is not a domain", "Give search domains as example.org")
        address.setdefault("search", []).append(domain)
    return address


def network_config(address: Address | None, macs: t.Sequence[str]) -> dict[str, object]:
    """cloud-init's network configuration: the static address on the first card, DHCP on every other one.

    Cards are matched by MAC address: they have other names in each guest, and patterns of names reach only netplan.
    A machine keeps its MAC address when it moves; a copy of it is another machine, with a seed of its own.

    Each form is the one that all renderers of cloud-init 22.4 and later write correctly (netplan, networkd, eni,
    sysconfig, NetworkManager; ``tests/unit`` runs them). For a static address that is version 1, where the renderer
    chooses how its system is told of the default route: version 2's route is added by ``route(8)`` under eni, which
    Debian doesn't install. For DHCP it is version 2, whose ``optional`` keeps a card without a server from holding up
    the boot under netplan.

    :param macs: the MAC addresses of the machine's cards, the first card's first.
    """
    if not address or address["method"] != "static":
        return {
            "version": 2,
            "ethernets": {
                f"eth{number}": {"match": {"macaddress": mac}, "dhcp4": True, "optional": True}
                for number, mac in enumerate(macs)
            },
        }
    static: dict[str, object] = {"type": "static", "address": address["ip"]}
    if address.get("gateway"):
        static["gateway"] = address["gateway"]
    if address.get("nameservers"):
        static["dns_nameservers"] = list(address["nameservers"])
    if address.get("search"):
        static["dns_search"] = list(address["search"])
    return {
        "version": 1,
        "config": [
            {
                "type": "physical",
                "name": f"eth{number}",
                "mac_address": mac,
                "subnets": [static if number == 0 else {"type": "dhcp4"}],
            }
            for number, mac in enumerate(macs)
        ],
    }


def in_seed(address: Address | None) -> Address | None:
    """The address that a machine reads from its seed, once, at its first start; ``None`` for DHCP."""
    return address if address and address["method"] == "static" else None
