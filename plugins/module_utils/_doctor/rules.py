# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host's firewall does with a packet, as far as its rules can be read (pure).

Rules are read as nft prints them in JSON; those of iptables are brought to the same form. A rule's matches are true,
false, or unknown where they depend on what isn't given, such as the sender.
"""

from __future__ import annotations

import ipaddress
import shlex
import typing as t

OWN_TABLES = ("virtuoso", "virtuoso_overlay", "virtuoso_traffic")
"""The collection's own, of whatever family: they are made to fit."""
_DEPTH = 16

Json = t.Mapping[str, object]


class Packet(t.NamedTuple):
    """The first packet of a TCP connection to a machine. The sender is not known."""

    bridge: str
    address: str
    port: int


class Chain(t.NamedTuple):
    """A chain of rules. ``hook`` is empty in one that is only jumped to."""

    table: str
    name: str
    hook: str
    policy: str
    rules: t.List[t.List[Json]]


def _mapping(value: object) -> Json:
    return value if isinstance(value, t.Mapping) else {}


def chains(ruleset: Json) -> t.Dict[t.Tuple[str, str], Chain]:
    """The chains of ``nft -j list ruleset`` by table and name; a table is written as family and name."""
    found: t.Dict[t.Tuple[str, str], Chain] = {}
    listed = ruleset.get("nftables")
    for entry in listed if isinstance(listed, list) else []:
        chain, rule = _mapping(_mapping(entry).get("chain")), _mapping(_mapping(entry).get("rule"))
        told = chain or rule
        table = f"{told.get('family')} {told.get('table')}"
        if chain and str(chain.get("type", "filter")) == "filter":
            name = str(chain.get("name"))
            found[table, name] = Chain(
                table, name, str(chain.get("hook") or ""), str(chain.get("policy") or "accept"), []
            )
        elif rule and (table, str(rule.get("chain"))) in found:
            expressions = rule.get("expr")
            found[table, str(rule.get("chain"))].rules.append(
                [_mapping(each) for each in expressions] if isinstance(expressions, list) else []
            )
    return found


def of_iptables(text: str) -> Json:
    """The table filter of ``iptables-save`` in nft's form. What isn't understood of a rule is an unknown match."""
    entries: t.List[Json] = []
    table = ""
    for line in text.splitlines():
        words = shlex.split(line, comments=True)
        if line.startswith("*"):
            table = line[1:].strip()
        elif table == "filter" and line.startswith(":") and len(words) > 1:
            name = words[0][1:]
            base = {"hook": name.lower(), "policy": words[1].lower()} if words[1] != "-" else {}
            entries.append({"chain": {"family": "ip", "table": table, "name": name, "type": "filter", **base}})
        elif table == "filter" and words[:1] == ["-A"]:
            rule = {"family": "ip", "table": table, "chain": words[1], "expr": _iptables_rule(words[2:])}
            entries.append({"rule": rule})
    return {"nftables": entries}


_IPTABLES_FIELDS: t.Dict[str, Json] = {
    "-o": {"meta": {"key": "oifname"}},
    "-d": {"payload": {"protocol": "ip", "field": "daddr"}},
    "--dport": {"payload": {"protocol": "tcp", "field": "dport"}},
    "--ctstate": {"ct": {"key": "state"}},
}


def _iptables_rule(words: t.Sequence[str]) -> t.List[Json]:
    expressions: t.List[Json] = []
    verdict: t.List[Json] = []
    operator, index = "==", 0
    while index + 1 < len(words) or (index < len(words) and words[index] == "!"):
        option, value = words[index], words[index + 1]
        if option == "!":
            operator, index = "!=", index + 1
            continue
        if option in _IPTABLES_FIELDS:
            right: object = value.split(",") if option == "--ctstate" else value
            if option == "--dport":
                right = {"range": [int(end) for end in (value.split(":") * 2)[:2]]}
            expressions.append({"match": {"op": operator, "left": _IPTABLES_FIELDS[option], "right": right}})
        elif option == "-p":
            left = {"meta": {"key": "l4proto"}}
            expressions.append({"match": {"op": operator, "left": left, "right": value}})
        elif option in ("-j", "-g"):
            plain = value.lower()
            verdict.append(
                {plain: None} if value in ("ACCEPT", "DROP", "REJECT", "RETURN") else {"jump": {"target": value}}
            )
        elif option not in ("-m", "--comment", "--reject-with"):
            expressions.append({"xt": {"type": "match", "name": option}})
        operator, index = "==", index + 2
    return [*expressions, *verdict]


def _verdict(expressions: t.Sequence[Json]) -> t.Tuple[str, str]:
    """accept, drop, reject, return, jump or goto and where to; empty where the rule only counts or marks."""
    for each in expressions:
        for word in ("accept", "drop", "reject", "return"):
            if word in each:
                return word, ""
        for word in ("jump", "goto"):
            if word in each:
                return word, str(_mapping(each[word]).get("target"))
        target = _mapping(each.get("xt"))
        if target.get("type") == "target" and target.get("name") in ("REJECT", "DROP"):
            return str(target["name"]).lower(), ""
    return "", ""


def _conditional(expressions: t.Sequence[Json]) -> bool:
    return any("match" in each or _mapping(each.get("xt")).get("type") == "match" for each in expressions)


def drops_by_default(ruleset: Json, hook: str) -> t.List[str]:
    """The base chains at a hook that refuse what no rule admits, by policy or by their last rule."""
    found = []
    for chain in chains(ruleset).values():
        if chain.hook != hook or chain.table.split()[1] in OWN_TABLES:
            continue
        last = chain.rules[-1] if chain.rules else []
        if chain.policy == "drop":
            found.append(f"{chain.table} {chain.name} (policy drop)")
        elif _verdict(last)[0] in ("drop", "reject") and not _conditional(last):
            found.append(f"{chain.table} {chain.name} (its last rule refuses the rest)")
    return found


def _within(value: object, right: object) -> t.Optional[bool]:
    """Whether a value is what the right side of a match says; none where that can't be told."""
    inner = _mapping(right)
    if "set" in inner:
        right = inner["set"]
    if isinstance(right, list):
        answers = [_within(value, each) for each in right]
        return True if True in answers else None if None in answers else False
    if "range" in inner:
        ends = inner["range"] if isinstance(inner["range"], list) else []
        numbers = [end for end in ends if isinstance(end, int)]
        return numbers[0] <= value <= numbers[1] if len(numbers) == 2 and isinstance(value, int) else None
    if isinstance(right, str) and right.startswith("@"):
        return None
    if "prefix" in inner:
        prefix = _mapping(inner["prefix"])
        right = f"{prefix.get('addr')}/{prefix.get('len')}"
    if isinstance(right, str) and isinstance(value, (ipaddress.IPv4Address, ipaddress.IPv6Address)):
        try:
            return value in ipaddress.ip_network(right, strict=False)
        except ValueError:
            return None
    if isinstance(right, str) and right.endswith(("*", "+")) and isinstance(value, str):
        return value.startswith(right[:-1])
    return value == right if isinstance(right, (str, int)) else None


def _known(left: Json, packet: Packet) -> object:
    """What is known of the packet's field on the left side of a match; none where nothing is."""
    address = ipaddress.ip_address(packet.address)
    meta, payload = _mapping(left.get("meta")), _mapping(left.get("payload"))
    family = "ip" if address.version == 4 else "ip6"
    by_meta: t.Dict[object, object] = {"oifname": packet.bridge, "oif": packet.bridge, "l4proto": "tcp"}
    if meta:
        return by_meta.get(meta.get("key"))
    if payload.get("field") == "daddr" and payload.get("protocol") in ("ip", "ip6"):
        return address if payload["protocol"] == family else ""
    if payload.get("field") == "dport":
        return packet.port if payload.get("protocol") in ("tcp", "th") else ""
    if "ct" in left and _mapping(left["ct"]).get("key") == "state":
        return "new"
    return None


def _match(expression: Json, packet: Packet) -> t.Optional[bool]:
    if _mapping(expression.get("xt")).get("type") == "match":
        return None
    match = _mapping(expression.get("match"))
    if not match:
        return True
    value = _known(_mapping(match.get("left")), packet)
    if value is None:
        return None
    answer = False if value == "" else _within(value, match.get("right"))
    return None if answer is None else answer != (match.get("op") == "!=")


class _Walk:
    """One packet's way through the chains of a hook."""

    def __init__(self, ruleset: Json, packet: Packet) -> None:
        self.chains = chains(ruleset)
        self.packet = packet
        self.stops: t.List[str] = []

    def _note(self, chain: Chain, verdict: str, certain: bool) -> None:
        text = f"{chain.table} {chain.name}: {verdict}" + ("" if certain else " for some")
        if text not in self.stops:
            self.stops.append(text)

    def walk(self, chain: Chain, certain: bool = True, depth: int = 0) -> bool:
        """Whether the packet's fate is decided in this chain."""
        for rule in chain.rules:
            answers = [_match(each, self.packet) for each in rule]
            if False in answers:
                continue
            sure = None not in answers
            verdict, target = _verdict(rule)
            if verdict in ("drop", "reject"):
                self._note(chain, verdict, certain and sure)
            elif verdict in ("jump", "goto") and (chain.table, target) in self.chains and depth < _DEPTH:
                decided = self.walk(self.chains[chain.table, target], certain and sure, depth + 1)
                if decided and sure:
                    return True
            if sure and verdict in ("accept", "drop", "reject"):
                return True
            if sure and verdict in ("return", "goto"):
                return False
        return False


def stopping(ruleset: Json, packet: Packet, *, bridged: bool = False) -> t.List[str]:
    """What stops, or may stop, a packet that the host forwards to a machine: table, chain and verdict.

    " for some" stands behind those that depend on what isn't known, such as the sender.

    :param bridged: the packet passes a bridge and no router: only the family bridge sees it.
    """
    walk = _Walk(ruleset, packet)
    version = ipaddress.ip_address(packet.address).version
    families = ("bridge",) if bridged else ("ip" if version == 4 else "ip6", "inet", "bridge")
    for chain in walk.chains.values():
        if chain.hook == "forward" and chain.table.split()[0] in families and chain.table.split()[1] not in OWN_TABLES:
            if not walk.walk(chain) and chain.policy == "drop":
                walk.stops.append(f"{chain.table} {chain.name}: policy drop")
    return walk.stops
