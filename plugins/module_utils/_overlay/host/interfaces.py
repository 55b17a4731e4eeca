# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which interfaces a host's part needs, and the lines for ``ip`` and ``bridge`` that make them (pure)."""

from __future__ import annotations

import hashlib
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.host.records import (
    Interface,
    Part,
    WantedInterface,
)

MARK = "virtuoso-overlay"
"""The alias of every interface that the overlay has made."""
PORT = 4789
"""The UDP port of VXLAN (RFC 7348, section 5)."""
WIREGUARD = "vwg0"
"""The WireGuard interface; its unit makes and removes it."""
ACCOUNT = "virtuoso-tap"
"""The system user that the ends of SSH taps belong to; it can log in for nothing else."""
ROLES = {"tree": ("on", "on"), "standby": ("off", "off"), "shortcut": ("off", "off"), "resting": ("off", "off")}
ROLES.update(evpn=("on", "off"), frozen=("on", "off"), flooding=("on", "off"))
"""By role of a link: whether its port floods, and whether it learns."""


def cable(network: str) -> t.List[str]:
    """The two ends of the cable (veth) that the role ``home`` makes from a network's bridge to its home's LAN."""
    name = hashlib.sha256(network.encode()).hexdigest()[:10]
    return [f"vh{name}", f"vl{name}"]


def cable_name(network: str) -> str:
    """The port of a network's bridge that leads to its home's LAN."""
    return cable(network)[0]


def wanted_links(part: Part) -> t.Dict[str, WantedInterface]:
    """Every interface that the part needs, by name."""
    mtu = {network["name"]: network["mtu"] for network in part["networks"]}
    bridge = {network["name"]: network["bridge"] for network in part["networks"]}
    found: t.Dict[str, WantedInterface] = {
        network["bridge"]: {"kind": "bridge", "mtu": network["mtu"]} for network in part["networks"]
    }
    for link in part["links"]:
        kind = "tun" if link["transport"] == "ssh" else "vxlan"
        wanted: WantedInterface = {
            "kind": kind,
            "mtu": mtu[link["network"]],
            "master": bridge[link["network"]],
            "role": link["role"],
        }
        if kind == "vxlan":
            wanted["id"], wanted["encrypted"] = link["vni"], "inner" in link
            if link["transport"] == "evpn":
                wanted["local"] = link["local"]
            else:
                # Inside WireGuard it uses IPv6 addresses that exist nowhere else.
                wanted["remote"] = link.get("inner") or link["remote"]
        found[link["device"]] = wanted
    return found


def foreign(wanted: t.Mapping[str, WantedInterface], there: t.Mapping[str, Interface]) -> t.List[str]:
    """Names of needed interfaces that exist already, made by others."""
    return sorted(name for name in wanted if name in there and there[name]["alias"] != MARK)


def _must_be_remade(want: WantedInterface, have: Interface) -> bool:
    return any(want.get(key) != have.get(key) for key in ("kind", "id", "remote", "local"))


def _make(name: str, want: WantedInterface) -> t.List[str]:
    if want["kind"] == "bridge":
        made = f"link add name {name} type bridge forward_delay 0 mcast_snooping 0"
    elif want["kind"] == "vxlan":
        ends = f"remote {want['remote']}" if "remote" in want else f"local {want['local']}"
        made = f"link add name {name} type vxlan id {want['id']} {ends} dstport {PORT} nolearning"
        # No checksums outside, as RFC 7348, section 5, has it. Inside WireGuard they are kept: wireguard-go can only
        # join datagrams that have them.
        made += "" if want["encrypted"] else " noudpcsum"
    else:
        made = f"tuntap add dev {name} mode tap user {ACCOUNT}"
    return [made, f"link set dev {name} alias {MARK}"]


def steps(wanted: t.Mapping[str, WantedInterface], there: t.Mapping[str, Interface]) -> t.List[str]:
    """The lines for ``ip -batch``, in order; none where everything is as it should be.

    A port gets its role before it is up, so that it never floods by mistake. Removals come last.
    """
    lines: t.List[str] = []
    mine = {name: have for name, have in there.items() if have["alias"] == MARK}
    for name in sorted(wanted, key=lambda each: (wanted[each]["kind"] != "bridge", each)):
        want, have = wanted[name], mine.get(name)
        if have is not None and _must_be_remade(want, have):
            lines.append(f"link delete dev {name}")
            have = None
        if have is None:
            have = {}
            lines += _make(name, want)
        if have.get("mtu") != want["mtu"]:
            lines.append(f"link set dev {name} mtu {want['mtu']}")
        if have.get("master") != want.get("master"):
            lines.append(f"link set dev {name} master {want['master']}")
            have = {**have, "role": None}
        if "role" in want and have.get("role") != ROLES[want["role"]]:
            flood, learning = ROLES[want["role"]]
            lines.append(
                f"link set dev {name} type bridge_slave flood {flood} mcast_flood {flood} bcast_flood {flood} "
                f"learning {learning}"
            )
        if not have.get("up"):
            lines.append(f"link set dev {name} up")
    gone = sorted(
        (name for name in mine if name not in wanted and name != WIREGUARD),
        key=lambda each: (mine[each]["kind"] == "bridge", each),
    )
    return lines + [f"link delete dev {name}" for name in gone]


def forwarding_steps(part: Part, there: t.AbstractSet[t.Tuple[str, str]]) -> t.List[str]:
    """The lines for ``bridge -batch`` that make the static entries of shortcuts, and remove others.

    :param there: (device, MAC address) of the static entries now.
    """
    wanted = {(entry["device"], entry["mac"]) for entry in part["forwarding"]}
    gone = [f"fdb delete {mac} dev {device} master" for device, mac in sorted(there - wanted)]
    return gone + [f"fdb replace {mac} dev {device} master static sticky" for device, mac in sorted(wanted - there)]
