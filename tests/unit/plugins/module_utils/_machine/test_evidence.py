# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which addresses of a machine are believed: a guest may claim any."""

from __future__ import annotations

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.state import evidence
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.state.evidence import NOWHERE, Evidence, Found

LAN = evidence.parse_prefixes(["192.0.2.0/24", "2001:db8::/64"])
GATEWAY, HOST, NEIGHBOUR = "192.0.2.1", "203.0.113.21", "192.0.2.9"


def choose(ordered=None, prefixes=None, **said):
    known = LAN if prefixes is None else prefixes
    return evidence.choose(Evidence(said, ordered, known, {GATEWAY, HOST, NEIGHBOUR}))


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.9.9.9", "0.0.0.0", "0.1.2.3", "169.254.1.1", "224.0.0.1", "255.255.255.255", "240.0.0.1"),
        *("::", "::1", "fe80::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:192.0.2.7", "::127.0.0.1"),
        *("64:ff9b::7f00:1", "2002:7f00:1::1", "2001:0:4136:e378::1", "2001:db8::7%eth0"),
        *("", "web1", "192.0.2.7/24", "192.0.2.07", 3221225991, None, b"\xc0\x00\x02\x07", ["192.0.2.7"]),
    ],
)
def test_what_another_host_can_not_connect_to_is_no_address(address):
    assert evidence.usable([address]) == []


def test_ipv4_comes_first_and_each_once():
    given = ["2001:db8::7", "192.0.2.7", "2001:db8:0::7", "fd00::7"]
    assert evidence.usable(given) == ["192.0.2.7", "2001:db8::7", "fd00::7"]


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ({}, NOWHERE),
        # Who gave the address is believed before who claims one.
        ({"agent": ["192.0.2.66"], "lease": ["192.0.2.7"]}, Found(["192.0.2.7"], "lease")),
        ({"agent": ["192.0.2.66"], "home": ["198.51.100.7"]}, Found(["198.51.100.7"], "home")),
        ({"agent": ["192.0.2.66"], "neighbour": ["192.0.2.7"]}, Found(["192.0.2.7"], "neighbour")),
        ({"agent": ["192.0.2.7", "2001:db8::7"]}, Found(["192.0.2.7", "2001:db8::7"], "agent")),
        # Outside of the network's prefixes, or somebody else's
        ({"agent": ["203.0.113.99"]}, Found([], None, ("203.0.113.99",))),
        ({"agent": [HOST]}, Found([], None, (HOST,))),
        ({"agent": [GATEWAY, "192.0.2.7"]}, Found(["192.0.2.7"], "agent")),
        ({"neighbour": [NEIGHBOUR]}, Found([], None, (NEIGHBOUR,))),
        ({"neighbour": [NEIGHBOUR], "agent": ["192.0.2.7"]}, Found(["192.0.2.7"], "agent")),
    ],
)
def test_a_guests_own_word_counts_in_its_network_alone(said, found):
    assert choose(**said) == found


def test_where_no_prefix_is_known_a_guests_own_word_is_not_believed():
    assert choose(prefixes=[], agent=["192.0.2.7"]) == Found([], None, ("192.0.2.7",))


def test_the_ordered_address_comes_first_once_it_is_confirmed():
    both = {"lease": ["192.0.2.50"], "neighbour": ["192.0.2.7"]}
    assert choose("192.0.2.7", **both) == Found(["192.0.2.7"], "neighbour")
    assert choose("192.0.2.8", **both) == Found(["192.0.2.50"], "lease")


NAT = """<network><name>n</name><bridge name='virtuoso0'/><ip address='192.0.2.1' netmask='255.255.255.0'/>
<ip family='ipv6' address='2001:db8::1' prefix='64'/></network>"""


def test_prefixes_are_read_from_libvirt_and_from_the_bridge():
    assert evidence.network_prefixes(NAT) == LAN and evidence.network_bridge(NAT) == "virtuoso0"
    assert evidence.network_prefixes("<network/>") == [] and evidence.network_bridge("<network/>") is None
    said = """[{"ifname": "lo", "addr_info": []},
        {"ifname": "br0", "addr_info": [{"local": "192.0.2.1", "prefixlen": 24},
        {"local": "fe80::1", "prefixlen": 64}]}]"""
    assert evidence.host_addresses(said) == {"lo": [], "br0": ["192.0.2.1/24", "fe80::1/64"]}
    assert evidence.host_addresses("nonsense") == {}
    assert evidence.parse_prefixes(["192.0.2.9/24", "x", None, 5]) == LAN[:1]
