# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The nftables rules that isolate networks, guests and the host, and count who talks to whom (pure).

Ports are named one by one, because not every kernel can match a frame's bridge (``meta ibrname``). A port that is not
named can't exchange frames with one that is. Each chain and each rule costs every frame that passes it, a chain most.
So forwarded frames pass few hooks, and a single comparison accepts most of them.
"""

from __future__ import annotations

import itertools
import re
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.host import evpn, groups
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.host.interfaces import PORT, cable_name
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.host.records import Guest, LinkEnd, Part

HOME = '"vh*"'
"""The ports of the cables to homes' own LANs, which the role ``home`` makes."""
FEW = 8
"""Up to this many guests are compared one by one."""
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
    """The text for ``nft -f``. For an empty part it only removes the rules."""
    if not part["networks"]:
        return _GONE + "table bridge virtuoso_traffic\ndelete table bridge virtuoso_traffic\n"
    return _GONE + _apart(part) + _own(part) + _senders(part)


def _apart(part: Part) -> str:
    """The table of which ports exchange frames. Most ports are recognised by their groups, those that are in none yet
    by their names, links that stand apart (:func:`groups.apart`) by pairs.

    The members of a network share a bridge, so the network itself need not be matched.
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
    # The host itself is on none of its networks: it accepts nothing from them, and sends only the announcement that a
    # machine has come (RARP).
    text += _chain("own", ["iifname @members counter drop", f"iifname {HOME} counter drop"], "input priority -200")
    silent = [f"oifname {port} ether type != 0x8035 counter drop" for port in ("@members", HOME)]
    return text + _chain("silent", silent, "output priority -200") + "}\n"


def _pairs(part: Part) -> t.Iterator[t.Tuple[str, str]]:
    """Pairs (from, to) of ports that may exchange frames, where one of both is a link that stands apart
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
    """The table that protects the host's own addresses: nobody on a network reaches them, and VXLAN is accepted only
    from the other ends of links."""
    meshes, bridges = evpn.ends(part), [network["bridge"] for network in part["networks"]]
    text = "table inet virtuoso_overlay {\n" + _set("bridges", "ifname", _quoted(bridges))
    peers = [peer for peer in part["peers"] if re.fullmatch(r"[0-9.]{7,15}", peer)]
    wireguard = part.get("wireguard")
    inside = [f'meta nfproto ipv6 iifname "{wireguard["device"]}" return'] if wireguard else []
    text += _chain("tunnelled", [*inside, "counter drop"])
    # Most packets are those of links, so they come first. Frames of members never come so far (the chain own); others
    # on our bridges meet the last rule.
    lines = [f"ip saddr {_braced(peers)} udp dport {PORT} accept"] if peers else []
    lines += [f"udp dport {PORT} goto tunnelled", "iifname @bridges counter drop"]
    if meshes:
        # BGP sessions exist only between a network's home and its hosts.
        lines.append(f"tcp dport {evpn.PORT} ip saddr {{ {', '.join(evpn.speakers(part)) or '0.0.0.0'} }} accept")
        lines.append(f'tcp dport {evpn.PORT} iifname != "lo" counter drop')
    return text + _chain("input", lines, "input priority filter - 10") + "}\n"


def _beside(part: Part, meshes: t.Sequence[LinkEnd]) -> t.List[str]:
    """The devices of links to hosts that are also on the mesh of the same network."""
    on_it = {(link["network"], peer["name"]) for link in meshes for peer in link["peers"]}
    return [link["device"] for link in part["links"] if (link["network"], link["peer"]) in on_it]


def _senders_of(guests: t.Sequence[Guest], numbers: t.Mapping[str, int]) -> t.List[str]:
    """The conditions for frames that these guests send from their own addresses. A few guests are compared one by one,
    which is faster than a set lookup.

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
    """The table that checks which address a guest sends from, and counts who sends how much to whom. Each frame is
    counted once, on the host of its sender.

    The set is never replaced, so that its counters survive changes of the rules. The chains are refilled in the same
    transaction.
    """
    free = {network["name"] for network in part["networks"] if network.get("spoofing")}
    guarded = [guest for guest in part["guests"] if guest["network"] not in free]
    ports = {link["device"]: "goto carried" for link in part["links"]}
    ports.update(
        {guest["device"]: "goto counted" for guest in part["guests"]},
        **{guest["device"]: "goto guarded" for guest in guarded},
    )
    # Where bridged frames also pass the host's IP rules (br_netfilter), connections within a network must not be
    # tracked: two networks may have the same addresses, and tracking costs more than all rules here.
    counted = "notrack update @matrix { ether saddr . ether daddr }"
    filled: t.Dict[str, t.List[str]] = {
        "carried": ["notrack"],
        "guarded": [],
        "counted": [counted],
        "came": [f"iifgroup {groups.LINKS} notrack accept"],
    }
    if guarded:
        # A guest may send from its own address only. Most frames end here or before: a jump costs as much as a rule.
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
