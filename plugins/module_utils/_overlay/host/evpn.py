# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""EVPN (RFC 7432, RFC 8365): FRR's settings, and the mesh's forwarding entries while BGP doesn't run (pure).

The overlay has an FRR instance of its own; the settings in /etc/frr are neither used nor changed.
"""

from __future__ import annotations

import re
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.host.records import FdbEntry, LinkEnd, Part

KIND = "evpn"
PORT = 179
"""The TCP port of BGP."""
INSTANCE = "virtuoso"
"""The name of the FRR instance and of its sockets' directory."""
ALL = "00:00:00:00:00:00"
"""The MAC address of a VXLAN device's entries for frames that are flooded."""
_NEIGHBOR = re.compile(r"^ neighbor ([0-9.]+) remote-as ", re.MULTILINE)
_LISTED = re.compile(r"^bgp extcommunity-list .*$", re.MULTILINE)
_SYSTEM = re.compile(r"^router bgp .*\n bgp router-id .*$", re.MULTILINE)
_USUAL = (
    "frr ",
    "log ",
    "hostname ",
    "service ",
    "line ",
    "password ",
    "enable password ",
    "no ip forwarding",
    "no ipv6 forwarding",
    "end",
    "exit",
)


def ends(part: Part) -> t.List[LinkEnd]:
    """This host's ends of meshes."""
    return [link for link in part["links"] if link["transport"] == KIND]


def wanted(part: Part) -> str:
    """The state that the speaker must have: ``runs``, ``frozen`` (its processes are stopped) or ``none``."""
    roles = {link["role"] for link in ends(part)}
    return "runs" if "evpn" in roles else "frozen" if "frozen" in roles else "none"


def speakers(part: Part) -> t.List[str]:
    """The addresses from which BGP is accepted."""
    return sorted({peer["address"] for link in ends(part) for peer in link["peers"] if peer["speaks"]})


def settings(part: Part) -> str | None:
    """FRR's settings for this host; ``None`` where it has no mesh.

    Only routes of meshes are announced, because FRR sees the other VXLAN devices as well.
    """
    spoken = [link for link in ends(part) if link["role"] in ("evpn", "frozen")]
    if not spoken:
        return None
    asn = spoken[0]["asn"]
    neighbors = sorted({peer["address"] for link in spoken for peer in link["peers"] if peer["speaks"]})
    lines = [
        "! Made by the role virtuoso.grid.overlay",
        "log syslog informational",
        f"router bgp {asn}",
        f" bgp router-id {spoken[0]['local']}",
    ]
    lines += [" no bgp default ipv4-unicast", " timers bgp 3 9", " bgp route-map delay-timer 1"]
    for address in neighbors:
        lines += [
            f" neighbor {address} remote-as {asn}",
            f" neighbor {address} timers connect 2",
            f" neighbor {address} advertisement-interval 0",
        ]
    lines.append(" address-family l2vpn evpn")
    for address in neighbors:
        lines.append(f"  neighbor {address} activate")
        # On each host for each neighbor, though only homes reflect. FRR restarts a session when this setting changes,
        # so adding a second network, of another home, would interrupt the first. Cluster lists and originator ids
        # prevent routes from going round (RFC 4456).
        lines.append(f"  neighbor {address} route-reflector-client")
        lines.append(f"  neighbor {address} route-map {INSTANCE} out")
    # Machines may move often; FRR would take that for duplicate addresses.
    lines += ["  advertise-all-vni", "  no dup-addr-detection", " exit-address-family", "exit"]
    lines += [
        f"bgp extcommunity-list standard {INSTANCE} permit rt {asn}:{vni}"
        for vni in sorted({link["vni"] for link in spoken})
    ]
    lines += [f"route-map {INSTANCE} permit 10", f" match extcommunity {INSTANCE}", "exit"]
    return "\n".join(lines) + "\n"


def changes(before: str, after: str) -> str | None:
    """The text that changes a running FRR from one text of settings to another; ``None`` where it must be restarted."""
    if _SYSTEM.findall(before) != _SYSTEM.findall(after):
        return None
    system = after[after.index("router bgp") :].splitlines()[0]
    gone = [address for address in _NEIGHBOR.findall(before) if address not in _NEIGHBOR.findall(after)]
    unlisted = [line for line in _LISTED.findall(before) if line not in _LISTED.findall(after)]
    text = "".join(f"no {line}\n" for line in unlisted)
    if gone:
        text += f"{system}\n" + "".join(f" no neighbor {address}\n" for address in gone) + "exit\n"
    return text + after


def mesh_steps(part: Part, entries: t.Sequence[FdbEntry], remade: t.Container[str] = ()) -> t.List[str]:
    """The lines for ``bridge -batch`` that set to which hosts the mesh floods, as long as BGP doesn't.

    :param entries: of all VXLAN devices now. :param remade: devices that will be remade, and so have no entries.
    """
    lines: t.List[str] = []
    for link in ends(part):
        device, to = link["device"], {peer["address"] for peer in link["peers"]}
        now = {
            entry["dst"]
            for entry in entries
            if entry.get("ifname") == device and entry.get("mac") == ALL and entry.get("dst")
        }
        now = set() if device in remade else now
        lines += [f"fdb delete {ALL} dev {device} dst {address} self" for address in sorted(now - to)]
        if link["role"] not in ("evpn", "frozen"):
            lines += [f"fdb append {ALL} dev {device} dst {address} self permanent" for address in sorted(to - now)]
    return lines


def resting_steps(part: Part, entries: t.Sequence[FdbEntry]) -> t.List[str]:
    """The lines for ``bridge -batch`` that remove what bridges have learned on resting links. An entry that is gone by
    then is not an error."""
    resting = {link["device"] for link in part["links"] if link["role"] == "resting"}
    return [
        f"fdb delete {entry['mac']} dev {entry['ifname']} master"
        for entry in entries
        if entry.get("ifname") in resting and entry.get("master") and entry.get("state") not in ("permanent", "static")
    ]


def owned_by_somebody(frr_conf: str | None, active: bool, enabled: bool) -> str | None:
    """Why FRR on a host belongs to others, or ``None``. Two instances on a host would remove each other's routes.

    :param frr_conf: the text of /etc/frr/frr.conf. :param active: frr.service runs. :param enabled: it is enabled.
    """
    if active or enabled:
        return f"an FRR of somebody else's {'runs here' if active else 'is to run here at boots'} (frr.service)"
    lines = [line.strip() for line in (frr_conf or "").splitlines()]
    said = [line for line in lines if line and line[0] not in "#!" and not line.startswith(_USUAL)]
    return f"/etc/frr/frr.conf has settings of somebody else's ({said[0][:60]!r})" if said else None
