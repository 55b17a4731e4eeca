# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The nftables rules that keep networks, guests and the host apart, and that count who talks to whom (pure).

Ports are named one by one: not every kernel can ask for a frame's bridge (``meta ibrname``). Whatever port is not named
can't exchange a frame with one that is. Every frame pays for each chain and each rule that it meets, most for a chain:
what forwarded frames need not meet is on a hook that they don't pass, and one comparison tells of most frames that they
may go on.
"""

from __future__ import annotations

import itertools
import re
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.host import evpn, groups
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.host.interfaces import PORT, Part, cable_name

HOME = '"vh*"'
"""The cables to homes' own LANs, which the role ``home`` makes."""
FEW = 8
"""So many guests are told apart one by one."""
_GONE = "".join(
    f"table {family} {name}\ndelete table {family} {name}\n"
    for family, name in (("bridge", "virtuoso_overlay"), ("inet", "virtuoso_overlay"))
)


def _quoted(devices: t.Iterable[str]) -> t.List[str]:
    return [f'"{device}"' for device in devices]


def _braced(elements: t.Iterable[str]) -> str:
    return f"{{ {', '.join(sorted(set(elements)))} }}"


def _set(name: str, kind: str, elements: t.Iterable[str], *, word: str = "set") -> str:
    listed = list(elements)
    return (
        f"  {word} {name} {{\n    type {kind}\n" + (f"    elements = {_braced(listed)}\n" if listed else "") + "  }\n"
    )


def _chain(name: str, lines: t.Sequence[str], hook: str = "") -> str:
    begin = [f"type filter hook {hook}; policy accept;"] if hook else []
    return f"  chain {name} {{\n" + "".join(f"    {line}\n" for line in [*begin, *lines]) + "  }\n"


def rules(part: Part) -> str:
    """What ``nft -f`` is to load; nothing but their removal for an empty part."""
    if not part["networks"]:
        return _GONE + "table bridge virtuoso_traffic\ndelete table bridge virtuoso_traffic\n"
    return _GONE + _apart(part) + _own(part) + _senders(part)


def _apart(part: Part) -> str:
    """Which ports exchange frames: most are told by their groups, those that are in none yet by their names; links that
    stand apart by pairs.

    Members of one network are on one bridge, so that nobody need ask for it.
    """
    links = [link["device"] for link in part["links"]]
    free = [link["device"] for link in part["links"] if not groups.apart(link)]
    guests, cables = (
        [guest["device"] for guest in part["guests"]],
        [cable_name(network["name"]) for network in part["networks"]],
    )
    text = "table bridge virtuoso_overlay {\n"
    text += _set("pairs", "ifname . ifname", sorted(f'"{one}" . "{other}"' for one, other in _pairs(part)))
    text += _set("free", "ifname", _quoted([*guests, *free, *cables])) + _set(
        "members", "ifname", _quoted([*guests, *links])
    )
    text += _chain("from", [f"oifname {HOME} accept", "counter drop"]) + _chain(
        "to", [f"iifname {HOME} accept", "counter drop"]
    )
    grouped = " ".join(f"{side}group & {groups.ALL:#x} == {groups.LINKS}" for side in ("iif", "oif"))
    exchanged = [f"{grouped} accept", "iifname . oifname @pairs accept", "iifname @free oifname @free accept"]
    exchanged += ["iifname @members goto from", "oifname @members goto to"]
    text += _chain("keep", exchanged, "forward priority -200")
    # The host itself is on none of its networks: it takes nothing from them, and sends nothing but the announcement
    # that a machine has come (RARP).
    text += _chain("own", ["iifname @members counter drop", f"iifname {HOME} counter drop"], "input priority -200")
    silent = [f"oifname {port} ether type != 0x8035 counter drop" for port in ("@members", HOME)]
    return text + _chain("silent", silent, "output priority -200") + "}\n"


def _pairs(part: Part) -> t.Iterator[t.Tuple[str, str]]:
    """Ports of which the second may have what came by the first, where one of both is a link that stands apart
    (:func:`groups.apart`)."""
    beside = set(_beside(part, evpn.ends(part)))
    for network in part["networks"]:
        name = network["name"]
        links = [link for link in part["links"] if link["network"] == name]
        ports = [*(guest["device"] for guest in part["guests"] if guest["network"] == name), cable_name(name)]
        for link in filter(groups.apart, links):
            yield from ((pair for port in ports for pair in ((link["device"], port), (port, link["device"]))))
        for one, other in itertools.permutations(links, 2):
            back = one["role"] == "shortcut" or one["transport"] == evpn.KIND and other["device"] in beside
            if not back and (groups.apart(one) or groups.apart(other)):
                yield one["device"], other["device"]


def _own(part: Part) -> str:
    """The host's own addresses: nobody on a network reaches them, and only those whom links are with send what links
    carry."""
    meshes, bridges = evpn.ends(part), [network["bridge"] for network in part["networks"]]
    text = "table inet virtuoso_overlay {\n" + _set("bridges", "ifname", _quoted(bridges))
    peers = [peer for peer in part["peers"] if re.fullmatch(r"[0-9.]{7,15}", peer)]
    wireguard = part.get("wireguard") or {}
    inside = [f'meta nfproto ipv6 iifname "{wireguard["device"]}" return'] if wireguard else []
    text += _chain("tunnelled", [*inside, "counter drop"])
    # What links carry is most of what comes. Members never come so far (the chain own); whoever else is on a bridge of
    # ours meets the last rule.
    lines = [f"ip saddr {_braced(peers)} udp dport {PORT} accept"] if peers else []
    lines += [f"udp dport {PORT} goto tunnelled", "iifname @bridges counter drop"]
    if meshes:
        # BGP is spoken with the network's home, or by it with its hosts, and with nobody else.
        lines.append(f"tcp dport {evpn.PORT} ip saddr {{ {', '.join(evpn.speakers(part)) or '0.0.0.0'} }} accept")
        lines.append(f'tcp dport {evpn.PORT} iifname != "lo" counter drop')
    return text + _chain("input", lines, "input priority filter - 10") + "}\n"


def _beside(part: Part, meshes: t.Sequence[Part]) -> t.List[str]:
    """The links to hosts that are on the mesh of the same network."""
    on_it = {(link["network"], peer["name"]) for link in meshes for peer in link["peers"]}
    return [link["device"] for link in part["links"] if (link["network"], link["peer"]) in on_it]


def _senders_of(guests: t.Sequence[Part], numbers: t.Mapping[str, int]) -> t.List[str]:
    """What frames that these guests send from their own addresses have: a few are compared one by one, for less than it
    takes to look them up.

    :param numbers: their ports' groups.
    """
    named = "iifname . ether saddr " + _braced(f'"{guest["device"]}" . {guest["mac"]}' for guest in guests)
    compared = [
        f"iifgroup {numbers[guest['device']]} ether saddr {guest['mac']}"
        for guest in guests
        if numbers[guest["device"]] != groups.PORTS
    ]
    return [*(compared if len(compared) <= FEW else ()), named]


def _senders(part: Part) -> str:
    """What a guest may send from, and who sends how much to whom: each frame once, where it comes from its sender.

    The set is never replaced, so that its counters outlive changes of the rules; the chains beside it are filled anew,
    in the same transaction.
    """
    free = {network["name"] for network in part["networks"] if network.get("spoofing")}
    guarded = [guest for guest in part["guests"] if guest["network"] not in free]
    ports = {link["device"]: "goto carried" for link in part["links"]}
    ports.update(
        {guest["device"]: "goto counted" for guest in part["guests"]},
        **{guest["device"]: "goto guarded" for guest in guarded},
    )
    # Where bridged frames pass the host's own rules as well (br_netfilter), the host keeps no account of connections
    # within a network: two networks may have the same addresses, and it costs more than all rules here.
    counted = "notrack update @matrix { ether saddr . ether daddr }"
    filled: t.Dict[str, t.List[str]] = {
        "carried": ["notrack"],
        "guarded": [],
        "counted": [counted],
        "came": [f"iifgroup {groups.LINKS} notrack accept"],
    }
    if guarded:
        # A guest sends from its own address, and from no other. Most frames end here or before: to leave a chain for
        # another costs them as much as a rule.
        filled["came"] += [f"{pair} {counted} accept" for pair in _senders_of(guarded, groups.own(part["guests"]))]
        filled["guarded"].append("counter drop")
    if ports:
        filled["came"].append("iifname vmap " + _braced(f'"{device}" : {verdict}' for device, verdict in ports.items()))
    filled["came"].append(f"iifname {HOME} goto counted")
    text = "table bridge virtuoso_traffic {\n  set matrix {\n    type ether_addr . ether_addr\n    size 65535\n"
    text += "    flags dynamic,timeout\n    timeout 1h\n    counter\n  }\n" + "".join(
        _chain(name, []) for name in ("carried", "guarded", "counted")
    )
    text += _chain("came", [], "prerouting priority -300") + "}\n"
    text += "".join(
        f"flush chain bridge virtuoso_traffic {name}\n" for name in ("came", "carried", "guarded", "counted")
    )
    return text + "".join(
        f"add rule bridge virtuoso_traffic {name} {line}\n" for name, lines in filled.items() for line in lines
    )
