# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The address of an order, on its way to cloud-init, to the domain's metadata and back."""

from __future__ import annotations

import json

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor import metadata
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.entry import parse_entry
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.spec import parse_order
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.files import seed
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.state import addresses, arp
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.state.evidence import NOWHERE, Found

GOOD = {"name": "web1", "owner": "alice", "image": "debian-12"}
STATIC = {
    "method": "static",
    "ip": "192.0.2.7/24",
    "gateway": "192.0.2.1",
    "nameservers": ["192.0.2.2"],
    "search": ["example.org"],
}
WHOLE = {
    **GOOD,
    "uuid": "5f0d5b1e-6c1c-4f3a-9c0f-2d6a1f0e8b11",
    "image": {"name": "debian-12@1", "digest": "sha256:" + "a" * 64},
}


def config(address, **more):
    """What cloud-init is told of the network, and the entry's MAC address."""
    spec = parse_entry({**WHOLE, "address": address, **more}).wanted
    return json.loads(seed.files(spec)["network-config"]), spec["mac"]


@pytest.mark.parametrize("given", [None, {}, {"method": "dhcp"}, {"method": "dhcp", "ip": None, "nameservers": []}])
def test_dhcp_alone_says_nothing(given):
    assert "address" not in parse_order({**GOOD, "address": given})
    told, mac = config(given)
    assert told["ethernets"] == {"eth0": {"match": {"macaddress": mac}, "dhcp4": True, "optional": True}}


def test_the_administrators_answer_is_kept_and_asked_for_by_dhcp():
    given = {"ip": "192.0.2.7/24"}
    assert parse_order({**GOOD, "address": given})["address"] == {"method": "dhcp", "ip": "192.0.2.7"}
    assert config(given)[0]["ethernets"]["eth0"]["dhcp4"] is True


def test_a_static_address_is_the_first_cards_alone():
    assert parse_order({**GOOD, "address": STATIC})["address"] == STATIC
    told, mac = config(STATIC, extra_networks=["lan"])
    first, second = told["config"]
    assert first["mac_address"] == mac != second["mac_address"]
    assert first["subnets"][0]["address"] == "192.0.2.7/24" and second["subnets"] == [{"type": "dhcp4"}]


def test_a_machine_that_moved_has_its_own_mac_address_in_the_seed():
    spec = parse_entry({**WHOLE, "address": STATIC}).wanted
    assert "72:aa:00:00:00:09" in seed.files(spec, "72:aa:00:00:00:09")["network-config"]


@pytest.mark.parametrize("given", [STATIC, {"ip": "192.0.2.7"}, {"method": "static", "ip": "192.0.2.7/24"}, None])
def test_the_canonical_form_stays_and_so_does_the_metadata(given):
    spec = parse_order({**GOOD, "address": given})
    assert parse_order(spec) == spec
    values = metadata.of_spec({**spec, "uuid": "u", "image": {"name": "i", "digest": "d"}}, False)
    assert values["address"] == spec.get("address")
    root = metadata.ET.Element("domain")
    metadata.ET.SubElement(root, "name")
    metadata.put(root, values)
    assert metadata.read(root)["address"] == values["address"]
    assert addresses.ordered(metadata.read(root)) == ("192.0.2.7" if given else None)


@pytest.mark.parametrize(
    "change",
    [
        {"ip": None},
        {"ip": "192.0.2.7"},
        {"ip": "192.0.2.0/24"},
        {"ip": "192.0.2.255/24"},
        {"ip": "2001:db8::1/64"},
        {"gateway": "192.0.3.1"},
        {"gateway": "192.0.2.7"},
        {"gateway": "gw"},
        {"nameservers": ["ns1"]},
        {"search": ["a b"]},
        {"method": "dhcp"},
    ],
)
def test_bad_addresses(change):
    with pytest.raises(GridError) as error:
        parse_order({**GOOD, "address": {**STATIC, **change}})
    assert error.value.code == "invalid_address" and error.value.remedy and "web1" in str(error.value)


def test_unknown_fields_are_told():
    with pytest.raises(GridError) as error:
        parse_order({**GOOD, "address": {"mac": "x"}})
    assert error.value.code == "invalid_order"


def test_what_homes_say_is_checked():
    leases = {
        "72:AA:00:00:00:01": {"address": "192.0.2.7"},
        "72:aa:00:00:00:02": {"address": "<b>"},
        "72:aa:00:00:00:03": "192.0.2.8",
    }
    assert addresses.of_homes(leases) == {
        "72:aa:00:00:00:01": ["192.0.2.7"],
        "72:aa:00:00:00:02": [],
        "72:aa:00:00:00:03": ["192.0.2.8"],
    }


QUESTION = arp.Question("vm0", "72:aa:00:00:00:01", "192.0.2.7")


def frame(sender="72aa00000001", address="c0000207", operation=2, source=None):
    """What a guest sends: an ARP frame."""
    head = "020000000001" + (source or sender) + "0806"
    return bytes.fromhex(f"{head}0001080006040{operation:03x}{sender}{address}02000000000100000000") + bytes(18)


def test_the_question_to_a_guest_teaches_it_nothing():
    sent = arp.request(QUESTION, bytes.fromhex("020000000001")).hex()
    assert sent == "ffffffffffff0200000000010806000108000604000102000000000100000000000000000000c0000207"


@pytest.mark.parametrize(
    ("said", "counts"),
    [
        (frame(), True),
        (frame(operation=1), True),
        (frame(address="c0000208"), False),
        (frame(sender="72aa00000002"), False),
        (frame(source="72aa00000002"), False),
        (frame(operation=3), False),
        (frame()[:40], False),
        (b"", False),
        (arp.request(QUESTION, bytes.fromhex("020000000001")), False),
    ],
)
def test_only_the_machines_own_answer_counts(said, counts):
    assert arp.answers(QUESTION, said) is counts


def test_who_can_not_be_asked_is_left_out():
    assert arp.ask([QUESTION._replace(device="none-such0"), QUESTION._replace(address="2001:db8::1")], 0.1) == set()


LIVE = """<domain><metadata><m:machine xmlns:m="urn:virtuoso:machine:1"/></metadata><devices><interface type='network'>
<mac address='72:AA:00:00:00:01'/><source network='virtuoso'/><target dev='vm0'/></interface></devices></domain>"""


class Quiet:
    """A running domain, and a connection, that know no address of a guest."""

    def interfaceAddresses(self, *dummy):
        return {}

    def networkLookupByName(self, dummy):
        return self

    def DHCPLeases(self):
        return []

    def XMLDesc(self, dummy):
        return "<network/>"


@pytest.mark.parametrize("seen", [True, False])
def test_an_ordered_address_is_the_machines_only_when_it_was_seen(monkeypatch, seen):
    spec = parse_entry({**WHOLE, "address": STATIC}).wanted
    tree = addresses.domain_xml.parse(LIVE)
    metadata.put(tree, metadata.of_spec(spec, True))
    asked = []

    def ask(questions):
        asked.extend(questions)
        return set(asked) if seen else set()

    monkeypatch.setattr(addresses.arp, "ask", ask)
    (found,) = addresses.Finder(Quiet()).find([(Quiet(), tree)])
    assert asked == [QUESTION]
    assert found == (Found(["192.0.2.7"], "neighbour") if seen else NOWHERE)
