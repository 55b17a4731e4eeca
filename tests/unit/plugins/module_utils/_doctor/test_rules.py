# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a firewall does with a packet, of the rules as nft and iptables print them."""

from __future__ import annotations

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._doctor.rules import (
    Packet,
    drops_by_default,
    of_iptables,
    stopping,
)

PACKET = Packet("virtuoso0", "192.168.140.7", 443)


def chain(name="forward", table="filter", hook="forward", policy="accept", family="inet", kind="filter"):
    base = {"type": kind, "hook": hook, "prio": 0, "policy": policy} if hook else {}
    return {"chain": {"family": family, "table": table, "name": name, **base}}


def rule(*expr, name="forward", table="filter", family="inet"):
    return {"rule": {"family": family, "table": table, "chain": name, "expr": list(expr)}}


def match(left, right, op="=="):
    return {"match": {"op": op, "left": left, "right": right}}


OUT = {"meta": {"key": "oifname"}}
IN = {"meta": {"key": "iifname"}}
TO = {"payload": {"protocol": "ip", "field": "daddr"}}
PORT = {"payload": {"protocol": "tcp", "field": "dport"}}
STATE = {"ct": {"key": "state"}}
DROP, ACCEPT, REJECT = {"drop": None}, {"accept": None}, {"reject": {"type": "icmp"}}
XT = {"xt": {"type": "match", "name": "conntrack"}}


def ruleset(*entries):
    return {"nftables": [{"metainfo": {"version": "1.0.6"}}, *entries]}


@pytest.mark.parametrize(
    ("rules", "stops"),
    [
        ([], []),
        ([rule(DROP)], ["inet filter forward: drop"]),
        ([rule(match(OUT, "virtuoso0"), REJECT)], ["inet filter forward: reject"]),
        ([rule(match(OUT, "virbr0"), REJECT)], []),
        ([rule(match(OUT, "virt*"), REJECT)], ["inet filter forward: reject"]),
        ([rule(match(OUT, "virtuoso0", "!="), REJECT)], []),
        ([rule(match(IN, "eth0"), DROP)], ["inet filter forward: drop for some"]),
        ([rule(match(PORT, 443), DROP)], ["inet filter forward: drop"]),
        ([rule(match(PORT, {"range": [1, 1023]}), DROP)], ["inet filter forward: drop"]),
        ([rule(match(PORT, {"set": [22, 80]}), DROP)], []),
        ([rule(match(PORT, "@ports"), DROP)], ["inet filter forward: drop for some"]),
        ([rule(match({"payload": {"protocol": "udp", "field": "dport"}}, 443), DROP)], []),
        ([rule(match(TO, {"prefix": {"addr": "192.168.140.0", "len": 24}}), DROP)], ["inet filter forward: drop"]),
        ([rule(match(TO, "192.168.140.8"), DROP)], []),
        ([rule(match({"payload": {"protocol": "ip6", "field": "daddr"}}, "::/0"), DROP)], []),
        ([rule(match(STATE, ["established", "related"], "in"), ACCEPT), rule(DROP)], ["inet filter forward: drop"]),
        ([rule(match(OUT, "virtuoso0"), ACCEPT), rule(DROP)], []),
        ([rule(XT, ACCEPT), rule(DROP)], ["inet filter forward: drop"]),
        ([rule({"xt": {"type": "target", "name": "REJECT"}})], ["inet filter forward: reject"]),
        ([rule({"counter": {}}), rule({"jump": {"target": "nowhere"}})], []),
    ],
)
def test_what_stops_a_packet(rules, stops):
    assert stopping(ruleset(chain(), *rules), PACKET) == stops


def test_a_chain_that_is_jumped_to_decides_and_a_return_does_not():
    entries = [
        chain(policy="drop"),
        chain("guests", hook=""),
        rule({"jump": {"target": "guests"}}),
        rule(match(PORT, 443), ACCEPT, name="guests"),
    ]
    assert stopping(ruleset(*entries), PACKET) == []
    entries[-1] = rule({"return": None}, name="guests")
    assert stopping(ruleset(*entries), PACKET) == ["inet filter forward: policy drop"]


def test_chains_that_jump_in_a_circle_end():
    entries = [chain(), chain("a", hook=""), rule({"jump": {"target": "a"}}), rule({"jump": {"target": "a"}}, name="a")]
    assert stopping(ruleset(*entries), PACKET) == []


def test_other_hooks_families_and_the_collections_own_table_are_no_matter():
    entries = [
        chain(hook="input", policy="drop"),
        chain(family="ip6", policy="drop"),
        chain(kind="nat", table="nat", policy="drop"),
        chain(table="virtuoso", policy="drop"),
    ]
    assert stopping(ruleset(*entries), PACKET) == []


def test_a_bridged_packet_is_seen_by_the_family_bridge_only():
    entries = [chain(policy="drop"), chain(family="bridge", policy="drop")]
    assert stopping(ruleset(*entries), PACKET, bridged=True) == ["bridge filter forward: policy drop"]
    assert len(stopping(ruleset(*entries), PACKET)) == 2


@pytest.mark.parametrize(
    ("entries", "found"),
    [
        ([chain(hook="input")], []),
        ([chain("INPUT", hook="input", policy="drop", family="ip")], ["ip filter INPUT (policy drop)"]),
        ([chain(hook="input"), rule(DROP)], ["inet filter forward (its last rule refuses the rest)"]),
        ([chain(hook="input"), rule(match(PORT, 25), DROP)], []),
        ([chain(hook="input"), rule(XT, DROP)], []),
        ([chain(hook="input"), rule(DROP), rule(ACCEPT)], []),
        ([chain("input", "virtuoso", "input", "drop")], []),
        ([chain(hook="output", policy="drop")], []),
    ],
)
def test_what_drops_by_default(entries, found):
    assert drops_by_default(ruleset(*entries), "input") == found


@pytest.mark.parametrize("nonsense", [{}, {"nftables": None}, {"nftables": [1, {}, {"chain": 2}, {"rule": {}}]}])
def test_what_is_no_ruleset_has_no_rules(nonsense):
    assert drops_by_default(nonsense, "input") == []
    assert stopping(nonsense, PACKET) == []


IPTABLES = """\
*nat
:POSTROUTING ACCEPT [0:0]
-A POSTROUTING -j DROP
COMMIT
*filter
:INPUT DROP [0:0]
:FORWARD ACCEPT [0:0]
:LIBVIRT_FWI - [0:0]
-A FORWARD -j LIBVIRT_FWI
-A FORWARD -p udp -m comment --comment "no matter" -j DROP
-A LIBVIRT_FWI -d 192.168.140.0/24 -o virtuoso0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A LIBVIRT_FWI ! -o virtuoso0 -j DROP
-A LIBVIRT_FWI -o virtuoso0 -p tcp -m tcp --dport 400:500 -j REJECT --reject-with icmp-port-unreachable
COMMIT
"""


def test_rules_of_iptables_are_read_alike():
    rules = of_iptables(IPTABLES)
    assert drops_by_default(rules, "input") == ["ip filter INPUT (policy drop)"]
    assert stopping(rules, PACKET) == ["ip filter LIBVIRT_FWI: reject"]
    assert stopping(rules, PACKET._replace(port=80)) == []
