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


def _quoted(devices: t.Iterable[str]) -> t.List[str]:
    return [f'"{device}"' for device in devices]


def _braced(elements: t.Iterable[str]) -> str:
    return f"{{ {', '.join(sorted(set(elements)))} }}"


def _set(name: str, kind: str, elements: t.Iterable[str], *, word: str = "set") -> str:
    listed = list(elements)
    return f"  {word} {name} {{\n    type {kind}\n" + (f"    elements = {_braced(listed)}\n" if listed else "") + "  }\n"


def _chain(name: str, lines: t.Sequence[str], hook: str = "") -> str:
    begin = [f"type filter hook {hook}; policy accept;"] if hook else []
    return f"  chain {name} {{\n" + "".join(f"    {line}\n" for line in [*begin, *lines]) + "  }\n"


def rules(part: Part) -> str:
    """What ``nft -f`` is to load; nothing but their removal for an empty part."""
    if not part["networks"]:
        return _GONE + "table bridge virtuoso_traffic\ndelete table bridge virtuoso_traffic\n"
    return _GONE + _apart(part) + _own(part) + _senders(part)


def _apart(part: Part) -> str:
    """Which ports exchange frames. One lookup finds what a port may do, one where the frame goes: every frame pays for each rule that it meets."""
    meshes = evpn.ends(part)
    links = [link["device"] for link in part["links"]]
    members = [*(guest["device"] for guest in part["guests"]), *links]
    chain = {**dict.fromkeys(members, "member"), **{link["device"]: "mesh" for link in meshes}}
    chain.update({link["device"]: "shortcut" for link in part["links"] if link["role"] == "shortcut"})
    text = "table bridge virtuoso_overlay {\n"
    text += _set("members", "ifname", _quoted(members)) + _set("links", "ifname", _quoted(links))
    text += _set("beside", "ifname", _quoted(_beside(part, meshes))) if meshes else ""
    text += _chain("member", ["oifname @members accept", f"oifname {HOME} accept", "counter drop"])
    text += _chain("cable", ["oifname @members accept"])
    # What comes over a shortcut is for machines here. One that isn't heard of for a while is unknown: flooded on, it would come back to the shortcut.
    text += _chain("shortcut", ["oifname @links counter drop", "goto member"])
    # Whoever is on a mesh has by it what came by it: while a network changes over, links beside it must not bring it again.
    text += _chain("mesh", ["oifname @beside counter drop", "goto member"]) if meshes else ""
    text += _set("ports", "ifname : verdict", (f'"{device}" : goto {name}' for device, name in chain.items()), word="map")
    text += _chain("keep", ["iifname vmap @ports", f"iifname {HOME} goto cable", "oifname @members counter drop"], "forward priority -200")
    # The host itself is on none of its networks.
    return text + _chain("own", ["iifname @members counter drop"], "input priority -200") + "}\n"


def _own(part: Part) -> str:
    """The host's own addresses: nobody on a network reaches them, and only those whom links are with send what links carry."""
    meshes, bridges = evpn.ends(part), [network["bridge"] for network in part["networks"]]
    text = "table inet virtuoso_overlay {\n" + _set("bridges", "ifname", _quoted(bridges))
    text += _set("peers", "ipv4_addr", (peer for peer in part["peers"] if re.fullmatch(r"[0-9.]{7,15}", peer)))
    wireguard = part.get("wireguard") or {}
    inside = [f'meta nfproto ipv6 iifname "{wireguard["device"]}" return'] if wireguard else []
    text += _chain("tunnelled", ["ip saddr @peers return", *inside, "counter drop"])
    lines = ["iifname @bridges counter drop", f"udp dport {PORT} goto tunnelled"]
    if meshes:
        # BGP is spoken with the network's home, or by it with its hosts, and with nobody else.
        lines.append(f"tcp dport {evpn.PORT} ip saddr {{ {', '.join(evpn.speakers(part)) or '0.0.0.0'} }} accept")
        lines.append(f'tcp dport {evpn.PORT} iifname != "lo" counter drop')
    text += _chain("input", lines, "input priority filter - 10")
    # Where bridged frames pass the host's own rules as well (br_netfilter), those of one bridge go on, and the host keeps no account of connections
    # within a network: two networks may have the same addresses, and it costs more than all rules here.
    text += _chain("untracked", ["iifname @bridges notrack"], "prerouting priority raw")
    text += _set("within", "ifname . ifname", (f'"{bridge}" . "{bridge}"' for bridge in bridges))
    lines = ["iifname . oifname @within accept", "iifname @bridges counter drop", "oifname @bridges counter drop"]
    return text + _chain("forward", lines, "forward priority filter - 10") + "}\n"


def _beside(part: Part, meshes: t.Sequence[Part]) -> t.List[str]:
    """The links to hosts that are on the mesh of the same network."""
    on_it = {(link["network"], peer["name"]) for link in meshes for peer in link["peers"]}
    return [link["device"] for link in part["links"] if (link["network"], link["peer"]) in on_it]


def _senders(part: Part) -> str:
    """What a guest may send from, and who sends how much to whom: each frame once, where it comes from its sender.

    The set is never replaced, so that its counters outlive changes of the rules; the chains beside it are filled anew, in the same transaction.
    """
    free = {network["name"] for network in part["networks"] if network.get("spoofing")}
    guarded = [guest for guest in part["guests"] if guest["network"] not in free]
    ports = {link["device"]: "accept" for link in part["links"]}
    ports.update({guest["device"]: "goto counted" for guest in part["guests"]}, **{guest["device"]: "goto guarded" for guest in guarded})
    filled = {"guarded": [], "counted": ["update @matrix { ether saddr . ether daddr }"], "came": []}  # type: t.Dict[str, t.List[str]]
    if guarded:
        # A guest sends from its own address, and from no other.
        pairs = _braced(f'"{guest["device"]}" . {guest["mac"]}' for guest in guarded)
        filled["guarded"] += [f"iifname . ether saddr != {pairs} counter drop", "goto counted"]
    if ports:
        filled["came"].append("iifname vmap " + _braced(f'"{device}" : {verdict}' for device, verdict in ports.items()))
    filled["came"].append(f"iifname {HOME} goto counted")
    text = "table bridge virtuoso_traffic {\n  set matrix {\n    type ether_addr . ether_addr\n    size 65535\n"
    text += "    flags dynamic,timeout\n    timeout 1h\n    counter\n  }\n" + _chain("guarded", []) + _chain("counted", [])
    text += _chain("came", [], "prerouting priority -300") + "}\n"
    text += "".join(f"flush chain bridge virtuoso_traffic {name}\n" for name in ("came", "guarded", "counted"))
    return text + "".join(f"add rule bridge virtuoso_traffic {name} {line}\n" for name, lines in filled.items() for line in lines)
