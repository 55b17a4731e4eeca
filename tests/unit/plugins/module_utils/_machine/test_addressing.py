# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The address of an order, on its way to cloud-init, to the domain's metadata and back."""

from __future__ import annotations

import json

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor import metadata
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.spec import parse_order
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.files import seed
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.state import addresses

GOOD = {"name": "web1", "owner": "alice", "image": "debian-12"}
STATIC = {
    "method": "static",
    "ip": "192.0.2.7/24",
    "gateway": "192.0.2.1",
    "nameservers": ["192.0.2.2"],
    "search": ["example.org"],
}
KINDS = ("en", "eth")


def config(spec):
    """What cloud-init is told of each kind of card."""
    told = json.loads(seed.files({**spec, "uuid": "u"})["network-config"])["ethernets"]
    return [told[kind] for kind in KINDS]


@pytest.mark.parametrize("given", [None, {}, {"method": "dhcp"}, {"method": "dhcp", "ip": None, "nameservers": []}])
def test_dhcp_alone_says_nothing(given):
    spec = parse_order({**GOOD, "address": given})
    assert "address" not in spec
    assert config(spec) == [{"match": {"name": f"{kind}*"}, "dhcp4": True, "optional": True} for kind in KINDS]


def test_the_administrators_answer_is_kept_and_asked_for_by_dhcp():
    spec = parse_order({**GOOD, "address": {"ip": "192.0.2.7/24"}})
    assert spec["address"] == {"method": "dhcp", "ip": "192.0.2.7"}
    assert all(card["dhcp4"] for card in config(spec))


def test_a_static_address_by_cloud_init():
    spec = parse_order({**GOOD, "address": STATIC})
    assert spec["address"] == STATIC
    for card in config(spec):
        assert card["dhcp4"] is False and card["addresses"] == ["192.0.2.7/24"]
        assert card["routes"] == [{"to": "default", "via": "192.0.2.1"}]
        assert card["nameservers"] == {"addresses": ["192.0.2.2"], "search": ["example.org"]}


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
    assert addresses.ordered(metadata.read(root)) == (["192.0.2.7"] if given else [])


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
