# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""MAC addresses: hierarchical, local, the same everywhere."""

from __future__ import annotations

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._ethernet import mac_address, mac_prefix

UUIDS = [f"5f0d5b1e-6c1c-4f3a-9c0f-{number:012x}" for number in range(300)]


@pytest.mark.parametrize("network, site", [("virtuoso", "site-a"), ("lan", "site-b"), ("x" * 31, "y")])
def test_address_is_local_unicast_and_below_its_prefix(network, site):
    prefix = mac_prefix(network, site)
    for uuid in UUIDS:
        address = mac_address(network, site, uuid)
        octets = [int(octet, 16) for octet in address.split(":")]
        assert address.startswith(prefix + ":") and len(octets) == 6
        assert octets[0] & 0x03 == 0x02


def test_address_is_the_same_on_every_host_for_ever():
    assert mac_address("virtuoso", "site-a", UUIDS[0]) == mac_address("virtuoso", "site-a", UUIDS[0])
    assert mac_prefix("virtuoso", "site-a") == "d2:ff:bf"


def test_different_machines_networks_and_sites_differ():
    assert len({mac_address("virtuoso", "site-a", uuid) for uuid in UUIDS}) == len(UUIDS)
    assert len({mac_prefix("virtuoso", f"site-{letter}") for letter in "abcd"}) == 4
    assert len({mac_prefix(f"net-{letter}", "site-a") for letter in "abcd"}) == 4
