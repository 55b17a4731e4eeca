# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The interfaces that a part needs, and what leads to them (pure)."""

from __future__ import annotations

import hashlib
import typing as t

Part = t.Dict[str, t.Any]
Link = t.Dict[str, t.Any]

MARK = "virtuoso-overlay"
PORT = 4789
"""VXLAN's (RFC 7348, section 5)."""
WIREGUARD = "vwg0"
"""Comes and goes with its unit."""
ACCOUNT = "virtuoso-tap"
"""The system user that the ends of SSH taps belong to: it can log in for nothing else."""
ROLES = {"tree": ("on", "on"), "standby": ("off", "off"), "shortcut": ("off", "off"), "resting": ("off", "off")}
ROLES.update(evpn=("on", "off"), frozen=("on", "off"), flooding=("on", "off"))
"""Flooding and learning of a link's port."""


def cable(network: str) -> t.List[str]:
    """The ends of the cable that the role ``home`` makes, from a network's bridge to its home's LAN."""
    name = hashlib.sha256(network.encode()).hexdigest()[:10]
    return [f"vh{name}", f"vl{name}"]


def cable_name(network: str) -> str:
    """The port of a network's bridge that leads to its home's LAN."""
    return cable(network)[0]


def wanted_links(part: Part) -> t.Dict[str, Link]:
    """Every interface that is to be there, by name: ``kind``, ``mtu`` and what makes it another one."""
    mtu = {network["name"]: network["mtu"] for network in part["networks"]}
    bridge = {network["name"]: network["bridge"] for network in part["networks"]}
    found: t.Dict[str, Link] = {
        network["bridge"]: {"kind": "bridge", "mtu": network["mtu"]} for network in part["networks"]
    }
    for link in part["links"]:
        kind = "tun" if link["transport"] == "ssh" else "vxlan"
        same: Link = {
            "kind": kind,
            "mtu": mtu[link["network"]],
            "master": bridge[link["network"]],
            "role": link["role"],
        }
        if kind == "vxlan":
            # Inside WireGuard it speaks IPv6, which nobody outside can.
            ends = (
                {"local": link["local"]}
                if link["transport"] == "evpn"
                else {"remote": link.get("inner") or link["remote"]}
            )
            same.update(ends, id=link["vni"], encrypted="inner" in link)
        found[link["device"]] = same
    return found


def foreign(wanted: t.Mapping[str, Link], there: t.Mapping[str, Link]) -> t.List[str]:
    """Interfaces of names that are needed, made by somebody else."""
    return sorted(name for name in wanted if name in there and there[name]["alias"] != MARK)


def _remade(want: Link, have: Link) -> bool:
    return any(want.get(key) != have.get(key) for key in ("kind", "id", "remote", "local"))


def _made(name: str, want: Link) -> t.List[str]:
    if want["kind"] == "bridge":
        made = f"link add name {name} type bridge forward_delay 0 mcast_snooping 0"
    elif want["kind"] == "vxlan":
        ends = f"remote {want['remote']}" if "remote" in want else f"local {want['local']}"
        made = f"link add name {name} type vxlan id {want['id']} {ends} dstport {PORT} nolearning"
        # As it should be (RFC 7348, section 5). Inside WireGuard checksums are kept: where that is a program it gathers
        # datagrams that have them.
        made += "" if want["encrypted"] else " noudpcsum"
    else:
        made = f"tuntap add dev {name} mode tap user {ACCOUNT}"
    return [made, f"link set dev {name} alias {MARK}"]


def steps(wanted: t.Mapping[str, Link], there: t.Mapping[str, Link]) -> t.List[str]:
    """Lines for ``ip -batch`` in their order; none where all is as it should be.

    A port has its role before it is up, so that none ever floods unasked; what goes, goes last.
    """
    lines: t.List[str] = []
    mine = {name: have for name, have in there.items() if have["alias"] == MARK}
    for name in sorted(wanted, key=lambda each: (wanted[each]["kind"] != "bridge", each)):
        want, have = wanted[name], mine.get(name)
        if have is not None and _remade(want, have):
            lines.append(f"link delete dev {name}")
            have = None
        if have is None:
            have = {}
            lines += _made(name, want)
        if have.get("mtu") != want["mtu"]:
            lines.append(f"link set dev {name} mtu {want['mtu']}")
        if have.get("master") != want.get("master"):
            lines.append(f"link set dev {name} master {want['master']}")
            have = {**have, "role": None}
        if "role" in want and have.get("role") != ROLES[want["role"]]:
            flood, learning = ROLES[want["role"]]
            lines.append(
                f"link set dev {name} type bridge_slave flood {flood} mcast_flood {flood} bcast_flood {flood} learning {learning}"
            )
        if not have.get("up"):
            lines.append(f"link set dev {name} up")
    gone = sorted(
        (name for name in mine if name not in wanted and name != WIREGUARD),
        key=lambda each: (mine[each]["kind"] == "bridge", each),
    )
    return lines + [f"link delete dev {name}" for name in gone]


def forwarding_steps(part: Part, there: t.AbstractSet[t.Tuple[str, str]]) -> t.List[str]:
    """Lines for ``bridge -batch``: the static entries of shortcuts.
    :param there: (device, MAC address) of the static entries now."""
    wanted = {(entry["device"], entry["mac"]) for entry in part["forwarding"]}
    gone = [f"fdb delete {mac} dev {device} master" for device, mac in sorted(there - wanted)]
    return gone + [f"fdb replace {mac} dev {device} master static sticky" for device, mac in sorted(wanted - there)]
