# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The nftables rules that keep networks, guests and the host apart, and that count who talks to whom (pure).

Ports are named one by one: not every kernel can ask for a frame's bridge (``meta ibrname``). Whatever port is not named can't exchange a frame with
one that is.
"""

from __future__ import annotations

import re
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._overlay import evpn
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.interfaces import PORT, Part

HOME = '"vh*"'
"""The cables to homes' own LANs, which the role ``home`` makes."""
_GONE = "".join(
    f"table {family} {name}\ndelete table {family} {name}\n" for family, name in (("bridge", "virtuoso_overlay"), ("inet", "virtuoso_overlay"))
)


def _set(name: str, kind: str, elements: t.Iterable[str]) -> str:
    listed = ", ".join(sorted(set(elements)))
    return f"  set {name} {{\n    type {kind}\n" + (f"    elements = {{ {listed} }}\n" if listed else "") + "  }\n"


def _quoted(devices: t.Iterable[str]) -> t.List[str]:
    return [f'"{device}"' for device in devices]


def rules(part: Part) -> str:
    """What ``nft -f`` is to load; nothing but their removal for an empty part."""
    if not part["networks"]:
        return _GONE + "table bridge virtuoso_traffic\ndelete table bridge virtuoso_traffic\n"
    free = {network["name"] for network in part["networks"] if network.get("spoofing")}
    guests = [guest["device"] for guest in part["guests"]]
    guarded = [guest for guest in part["guests"] if guest["network"] not in free]
    bridges = [network["bridge"] for network in part["networks"]]
    text = _GONE + "table bridge virtuoso_overlay {\n"
    text += _set("members", "ifname", _quoted([*guests, *(link["device"] for link in part["links"])]))
    text += _set("links", "ifname", _quoted(link["device"] for link in part["links"]))
    text += _set("shortcuts", "ifname", _quoted(link["device"] for link in part["links"] if link["role"] == "shortcut"))
    meshes = evpn.ends(part)
    text += _set("meshes", "ifname", _quoted(link["device"] for link in meshes)) if meshes else ""
    text += _set("beside", "ifname", _quoted(_beside(part, meshes))) if meshes else ""
    text += _set("guarded", "ifname", _quoted(guest["device"] for guest in guarded))
    text += _set("guests", "ifname . ether_addr", (f'"{guest["device"]}" . {guest["mac"]}' for guest in guarded))
    # A guest sends from its own address, and from no other.
    text += "  chain guard {\n    type filter hook prerouting priority -300; policy accept;\n"
    text += "    iifname @guarded iifname . ether saddr != @guests counter drop\n  }\n"
    text += "  chain keep {\n    type filter hook forward priority -200; policy accept;\n"
    # What comes over a shortcut is for machines here. One that isn't heard of for a while is unknown: flooded on, it would come back to the shortcut.
    text += "    iifname @shortcuts oifname @links counter drop\n"
    # Whoever is on a mesh has by it what came by it: while a network changes over, links beside it must not bring it again.
    text += "    iifname @meshes oifname @beside counter drop\n" if meshes else ""
    text += f"    iifname @members oifname @members accept\n    iifname @members oifname {HOME} accept\n    iifname {HOME} oifname @members accept\n"
    text += "    iifname @members counter drop\n    oifname @members counter drop\n  }\n"
    # The host itself is on none of its networks.
    text += "  chain own {\n    type filter hook input priority -200; policy accept;\n    iifname @members counter drop\n  }\n}\n"
    text += "table inet virtuoso_overlay {\n" + _set("bridges", "ifname", _quoted(bridges))
    text += _set("peers", "ipv4_addr", (peer for peer in part["peers"] if re.fullmatch(r"[0-9.]{7,15}", peer)))
    text += "  chain input {\n    type filter hook input priority filter - 10; policy accept;\n    iifname @bridges counter drop\n"
    text += f"    udp dport {PORT} meta nfproto ipv4 ip saddr != @peers counter drop\n"
    wireguard = part.get("wireguard") or {}
    inside = f' iifname != "{wireguard["device"]}"' if wireguard else ""
    text += f"    udp dport {PORT} meta nfproto ipv6{inside} counter drop\n"
    if meshes:
        # BGP is spoken with the network's home, or by it with its hosts, and with nobody else.
        text += f"    tcp dport {evpn.PORT} ip saddr {{ {', '.join(evpn.speakers(part)) or '0.0.0.0'} }} accept\n"
        text += f'    tcp dport {evpn.PORT} iifname != "lo" counter drop\n'
    text += "  }\n"
    text += "  chain forward {\n    type filter hook forward priority filter - 10; policy accept;\n"
    for bridge in bridges:
        # Where bridged frames pass the host's own rules as well, those of one bridge go on.
        text += f'    iifname "{bridge}" oifname != "{bridge}" counter drop\n    oifname "{bridge}" iifname != "{bridge}" counter drop\n'
    return text + "  }\n}\n" + _counting(guests)


def _beside(part: Part, meshes: t.Sequence[Part]) -> t.List[str]:
    """The links to hosts that are on the mesh of the same network."""
    on_it = {(link["network"], peer["name"]) for link in meshes for peer in link["peers"]}
    return [link["device"] for link in part["links"] if (link["network"], link["peer"]) in on_it]


def _counting(guests: t.Sequence[str]) -> str:
    """Once for each frame, where it comes from its sender. The set is never replaced: its counters outlive changes of the rules."""
    text = "table bridge virtuoso_traffic {\n  set matrix {\n    type ether_addr . ether_addr\n    size 65535\n"
    text += "    flags dynamic,timeout\n    timeout 1h\n    counter\n  }\n"
    text += "  chain count {\n    type filter hook prerouting priority 0; policy accept;\n  }\n}\nflush chain bridge virtuoso_traffic count\n"
    update = "update @matrix { ether saddr . ether daddr }\n"
    if guests:
        text += f"add rule bridge virtuoso_traffic count iifname {{ {', '.join(_quoted(guests))} }} {update}"
    return text + f"add rule bridge virtuoso_traffic count iifname {HOME} {update}"
