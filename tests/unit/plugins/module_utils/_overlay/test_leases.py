# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names and addresses at a home: what is reserved, what is refused, what is read from the server and the kernel."""

from __future__ import annotations

import ipaddress
import json

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.home import leases
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.home import reservations as rooms

UUID, OTHER = "5f0d5b1e-6c1c-4f3a-9c0f-2d6a1f0e8b11", "0b8ec5a5-2a6d-4b5a-8f3a-4f5a3f3f7a10"
SUBNET = ipaddress.IPv4Network("192.168.77.0/24")
ENTRY = {"uuid": UUID, "name": "web1", "mac": "72:4E:0a:31:c2:5d"}


def code(function, *arguments):
    """The code of what it raises."""
    with pytest.raises(GridError) as error:
        function(*arguments)
    return error.value.code


@pytest.mark.parametrize("address", [None, "192.168.77.50"])
def test_a_line_is_read_as_it_was_written(address):
    wanted = leases.parse_reservation({**ENTRY, "address": address}, SUBNET)
    assert wanted.line == f"72:4e:0a:31:c2:5d,id:*,{address + ',' if address else ''}web1\n"
    assert leases.parse_line(UUID, wanted.line) == wanted


def test_an_address_with_its_prefix_is_the_address():
    assert leases.parse_reservation({**ENTRY, "address": "192.168.77.50/24"}, SUBNET).address == "192.168.77.50"


@pytest.mark.parametrize(
    "change, expected",
    [
        ({"uuid": "../x"}, "invalid_uuid"),
        ({"name": "web1,192.168.77.1"}, "invalid_name"),
        ({"name": "web1\nserver=8.8.8.8"}, "invalid_name"),
        ({"mac": "72:4e:0a:31:c2"}, "invalid_mac"),
        ({"mac": "01:00:5e:00:00:01"}, "invalid_mac"),
        ({"address": "web1"}, "invalid_address"),
        ({"address": "fe80::1"}, "invalid_address"),
        ({"address": "192.168.78.5"}, "address_outside"),
        ({"address": "192.168.77.255"}, "address_outside"),
    ],
)
def test_bad_entries(change, expected):
    assert code(leases.parse_reservation, {**ENTRY, **change}, SUBNET) == expected


def test_what_is_to_be_done_and_what_others_have():
    mine = leases.parse_reservation({**ENTRY, "address": "192.168.77.50"}, SUBNET)
    assert leases.decide(mine, {}, "192.168.77.1") == ["reserve"]
    assert leases.decide(mine, {UUID: mine}, "192.168.77.1") == []
    moved = leases.Reservation(UUID, "web1", mine.mac, "192.168.77.51")
    assert leases.decide(moved, {UUID: mine}, None) == ["change reservation"]
    for fields, expected in (
        (("web2", "72:00:00:00:00:01", "192.168.77.50"), "address_taken"),
        (("web1", "72:00:00:00:00:01", None), "name_taken"),
        (("web2", mine.mac, None), "mac_taken"),
        (("web2", "72:00:00:00:00:01", "192.168.77.1"), "address_taken"),
    ):
        assert code(leases.decide, leases.Reservation(OTHER, *fields), {UUID: mine}, "192.168.77.1") == expected


def test_leases_and_neighbours_are_checked_and_leases_come_first():
    text = "1700000000 72:4e:0a:31:c2:5d 192.168.77.50 web1 *\n"
    text += "1700000000 72:00:00:00:00:02 192.168.77.9 <b> ff:00\nduid 00:01\n"
    text += "1 x y z\n1 72:00:00:00:00:04 127.0.0.1 a *\n"
    seen = [
        {"dst": "192.168.77.60", "lladdr": "72:4e:0a:31:c2:5d", "state": ["STALE"]},
        {"dst": "192.168.77.61", "lladdr": "72:00:00:00:00:03", "state": ["REACHABLE"]},
        {"dst": "192.168.77.62", "state": ["FAILED"]},
        {"dst": "169.254.1.1", "lladdr": "72:00:00:00:00:05", "state": ["STALE"]},
    ]
    found = leases.by_mac([*leases.parse_neighbours(seen), *leases.parse_leases(text)])
    assert {mac: (lease.address, lease.source, lease.name) for mac, lease in found.items()} == {
        "72:4e:0a:31:c2:5d": ("192.168.77.50", "lease", "web1"),
        "72:00:00:00:00:02": ("192.168.77.9", "lease", None),
        "72:00:00:00:00:03": ("192.168.77.61", "neighbour", None),
    }


@pytest.fixture(name="home")
def _home(tmp_path):
    (tmp_path / "lan" / "hosts").mkdir(parents=True)
    settings = {"network": "lan", "bridge": "br-lan", "addresses": ["192.168.77.1/24"], "dhcp": True}
    (tmp_path / "lan" / "network.json").write_text(json.dumps(settings), encoding="utf-8")
    return rooms.Home("lan", str(tmp_path), str(tmp_path))


def test_reserving_twice_changes_nothing_and_releasing_leaves_nothing(home, tmp_path):
    assert home.reserve(ENTRY, home.reservations(), True)["changed"] and home.reservations() == {}, "check mode wrote"
    assert home.reserve(ENTRY, home.reservations(), False)["actions"] == ["reserve"]
    assert not home.reserve(ENTRY, home.reservations(), False)["changed"]
    assert [file.name for file in (tmp_path / "lan" / "hosts").iterdir()] == [UUID]
    there = home.reservations()
    assert home.release(UUID, there, True)["changed"] and home.reservations()
    assert home.release(UUID, home.reservations(), False)["changed"] and home.reservations() == {}
    assert not home.release(UUID, home.reservations(), False)["changed"]


def test_two_of_one_name_in_one_list(home):
    there = home.reservations()
    home.reserve(ENTRY, there, True)
    assert code(home.reserve, {**ENTRY, "uuid": OTHER, "mac": "72:00:00:00:00:01"}, there, True) == "name_taken"


def test_a_network_that_is_not_here_and_one_that_another_server_serves(home, tmp_path):
    assert code(rooms.Home, "wan", str(tmp_path), str(tmp_path)) == "network_missing"
    assert code(rooms.Home, "../lan", str(tmp_path), str(tmp_path)) == "invalid_network"
    (tmp_path / "lan" / "network.json").write_text(json.dumps({"bridge": "br-lan", "dhcp": False}), encoding="utf-8")
    assert code(rooms.Home("lan", str(tmp_path), str(tmp_path)).reservations) == "no_dhcp_server"
