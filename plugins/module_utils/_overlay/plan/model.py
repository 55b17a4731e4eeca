# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A network of ``virtuoso_networks``: checks it, and computes its VNI and the names of its devices (pure)."""

from __future__ import annotations

import re
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._ethernet import MTU_RANGE, bits, mac_prefix
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.plan.topology import Edge, edge

VNI_RANGE = (1, 2**24 - 1)
"""RFC 7348, section 5."""
TOPOLOGIES = ("star", "tree", "evpn")
TRANSPORTS = ("vxlan", "wireguard", "ssh")
OVERHEAD = {"vxlan": 50, "wireguard": 130, "ssh": 0}
"""Bytes of the path's MTU that the tunnel takes, over IPv4; a tap over TCP takes none."""
SSH_MTU = 1450
"""The MTU of a network that only SSH carries, in bytes: the usual one of VXLAN."""

ASN_RANGE = (64512, 65534)
"""Private autonomous systems (RFC 6996) that fit into the 16 bits of a route target."""


class Network(t.TypedDict):
    """A network in its canonical form.

    ``home``: the host of its home. ``hosts``: all its hosts, sorted. ``topology``: one of TOPOLOGIES. ``mtu``: bytes,
    ``None`` to have it computed. ``transports``: those that are fixed, by link. ``asn``: of its EVPN mesh.
    """

    name: str
    home: str
    hosts: t.List[str]
    topology: str
    encrypted: bool
    spoofing: bool
    vni: int
    mtu: t.Optional[int]
    shortcuts: t.List[Edge]
    transports: t.Dict[Edge, str]
    asn: int


_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,30}", re.ASCII)


def bridge_name(network: str) -> str:
    """The bridge of a network on each of its hosts: 12 characters; the kernel allows 15."""
    return f"vb{bits('bridge', network, 40):010x}"


def _pair(network: str, one: str, other: str) -> str:
    return "\0".join((network, *sorted((one, other))))


def link_device(transport: str, network: str, one: str, other: str) -> str:
    """The device of a link, the same at both ends. Each transport has its own, so that one can replace another. OpenSSH
    requires the name tap and a number."""
    pair = _pair(network, one, other)
    if transport == "ssh":
        return f"tap{bits('link', pair, 29)}"
    return f"{'vw' if transport == 'wireguard' else 'vt'}{bits('link', pair, 40):010x}"


def mesh_device(network: str) -> str:
    """The VXLAN device of an EVPN network, the same on each of its hosts."""
    return f"ve{bits('mesh', network, 40):010x}"


def link_vni(network: int, one: str, other: str) -> int:
    """The VNI of a link; each link has its own, so that none receives another's frames.

    :param network: the VNI of the network.
    """
    return bits("vni", _pair(str(network), one, other), 24) or 1


def network_vni(network: str) -> int:
    """The VNI of a network that is given none."""
    return bits("vni", network, 24) or 1


def _bad(code: str, name: object, msg: str, remedy: str, other: str | None = None) -> GridError:
    """An error about a network. :param other: the network that it conflicts with."""
    error = GridError(code, msg, object=f"network {name}", tried="read virtuoso_networks", remedy=remedy)
    if other is not None:
        error.details["other"] = other
    return error


def _number(name: str, what: str, value: object, allowed: tuple[int, int]) -> int:
    text = str(value)
    if (
        isinstance(value, bool)
        or not text.isascii()
        or not text.isdigit()
        or not allowed[0] <= int(text[:9]) <= allowed[1]
    ):
        raise _bad(
            f"invalid_{what}",
            name,
            f"{what} {text[:20]} is not from {allowed[0]} to {allowed[1]}",
            "Give another one, or leave it out",
        )
    return int(text)


def parse_network(given: object, hosts: t.Collection[str]) -> Network:
    """Check an entry of ``virtuoso_networks`` and bring it into its canonical form.

    :param hosts: the hosts of this run.
    :raises GridError: ``invalid_network``, ``unknown_host``, ``invalid_vni``, ``invalid_mtu``, ``invalid_asn``,
        ``evpn_not_encrypted``.
    """
    if not isinstance(given, t.Mapping) or not isinstance(given.get("name"), str) or not _NAME.fullmatch(given["name"]):
        name = given.get("name") if isinstance(given, t.Mapping) else given
        raise _bad(
            "invalid_network",
            str(name)[:40],
            "it has no name of 1 to 31 lower-case letters, digits and hyphens",
            "Give each network a name",
        )
    name = given["name"]
    known = {
        "name",
        "home",
        "hosts",
        "topology",
        "encrypted",
        "spoofing",
        "vni",
        "mtu",
        "shortcuts",
        "transports",
        "asn",
    }
    if set(given) - known:
        raise _bad(
            "invalid_network",
            name,
            f"unknown fields: {', '.join(sorted(map(str, set(given) - known)))}",
            f"It has {', '.join(sorted(known))}",
        )
    topology, chosen = given.get("topology") or "star", list(given.get("hosts") or hosts)
    shortcuts = sorted(tuple(sorted(map(str, pair))) for pair in given.get("shortcuts") or [])
    transports: dict[Edge, str] = {
        edge(str(each.get("between", ["", ""])[0]), str(each.get("between", ["", ""])[-1])): each.get("transport")
        for each in given.get("transports") or []
    }
    if topology not in TOPOLOGIES or set(transports.values()) - set(TRANSPORTS):
        raise _bad(
            "invalid_network",
            name,
            "its topology or a transport is unknown",
            f"Topologies: {', '.join(TOPOLOGIES)}; transports: {', '.join(TRANSPORTS)}",
        )
    if given.get("home") and given["home"] not in chosen:
        chosen.append(given["home"])
    named = {*chosen, *(host for pair in (*shortcuts, *transports) for host in pair)}
    if not given.get("home") or named - set(hosts):
        missing = ", ".join(sorted(named - set(hosts))) or "a home"
        raise _bad(
            "unknown_host",
            name,
            f"it has no {missing} among the hosts of this run",
            "Give its home, and only hosts that are in the inventory",
        )
    if any(len(set(pair)) != 2 for pair in (*shortcuts, *transports)) or {
        host for pair in shortcuts for host in pair
    } - set(chosen):
        raise _bad(
            "invalid_network",
            name,
            "a shortcut is not between two hosts of the network",
            "Give pairs such as [provider1, provider2]",
        )
    network: Network = {
        "name": name,
        "home": given["home"],
        "hosts": sorted(set(chosen)),
        "topology": topology,
        "encrypted": given.get("encrypted") is True or str(given.get("encrypted", "")).lower() in ("true", "yes"),
        "spoofing": given.get("spoofing") is True or str(given.get("spoofing", "")).lower() in ("true", "yes"),
        "vni": network_vni(name) if given.get("vni") is None else _number(name, "vni", given["vni"], VNI_RANGE),
        "mtu": None if given.get("mtu") is None else _number(name, "mtu", given["mtu"], MTU_RANGE),
        "shortcuts": [edge(*pair) for pair in shortcuts],
        "transports": transports,
        "asn": ASN_RANGE[0] if given.get("asn") is None else _number(name, "asn", given["asn"], ASN_RANGE),
    }
    _check_evpn(network)
    return network


def _check_evpn(network: Network) -> None:
    if network["topology"] != "evpn":
        return
    if network["encrypted"]:
        raise _bad(
            "evpn_not_encrypted",
            network["name"],
            "EVPN's links are plain VXLAN between IPv4 addresses, and the network must be encrypted",
            "Leave out encrypted, or give topology star or tree, whose links are encrypted",
        )
    if set(network["transports"].values()) - {"vxlan", "ssh"}:
        raise _bad(
            "invalid_network",
            network["name"],
            "a transport is neither vxlan nor ssh, and with EVPN there are no others",
            "Give one of those",
        )
    if network["shortcuts"]:
        raise _bad(
            "invalid_network",
            network["name"],
            "with EVPN all hosts reach each other directly, without shortcuts",
            "Leave out shortcuts",
        )


def check_apart(networks: t.Sequence[Network]) -> None:
    """Require that no two networks could be taken for each other.

    :raises GridError: ``duplicate_network``, ``vni_overlap``, ``mac_overlap``, ``asn_differs``.
    """
    names: dict[str, Network] = {}
    vnis: dict[int, str] = {}
    prefixes: dict[str, str] = {}
    systems: dict[str, Network] = {}
    for network in networks:
        name = network["name"]
        if names.setdefault(name, network) is not network:
            raise _bad("duplicate_network", name, "it is listed twice", "Give each network once")
        other = vnis.setdefault(network["vni"], name)
        if other != name:
            raise _bad(
                "vni_overlap",
                name,
                f"it has the VNI {network['vni']} of network {other}",
                "Give one of them another vni",
                other=other,
            )
        other = prefixes.setdefault(mac_prefix(name, "")[:5], name)
        if other != name:
            raise _bad(
                "mac_overlap",
                name,
                f"its MAC addresses begin as those of network {other}",
                "Give one of them another name",
                other=other,
            )
        for host in network["hosts"] if network["topology"] == "evpn" else ():
            first = systems.setdefault(host, network)
            if first["asn"] != network["asn"]:
                raise _bad(
                    "asn_differs",
                    name,
                    f"its asn is {network['asn']}, and that of network {first['name']}, "
                    f"which is on {host} too, {first['asn']}",
                    "Give both the same asn",
                    other=first["name"],
                )
