# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which addresses a network of the target's can keep for a machine that comes."""

from __future__ import annotations

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor import domain_xml
from ansible_collections.virtuoso.grid.plugins.module_utils._migration.host import marking

NETWORK = """<network><name>n</name>
  <ip address='198.18.101.1' prefix='24'><dhcp><range start='198.18.101.2' end='198.18.101.99'/></dhcp></ip>
  <ip address='198.18.102.1' netmask='255.255.255.128'><dhcp/></ip>
  <ip address='198.18.103.1' netmask='255.255.255.0'/>
  <ip family='ipv6' address='2001:db8::1' prefix='64'><dhcp/></ip>
  <ip address='nonsense'/>
</network>"""


@pytest.mark.parametrize(
    "address, can",
    [
        # Beyond the range, but in the subnet: leases may be kept there.
        ("198.18.101.200", True),
        ("198.18.102.5", True),
        ("198.18.102.130", False),
        # No DHCP server; another network altogether; no address.
        ("198.18.103.5", False),
        ("198.18.1.5", False),
        ("x", False),
    ],
)
def test_only_what_it_could_lease_is_kept(address, can):
    assert marking.can_lease(domain_xml.parse(NETWORK), address) is can


class Network:
    """Counts what it is told."""

    def __init__(self):
        self.told = []

    def XMLDesc(self, dummy):  # pylint: disable=invalid-name
        return NETWORK

    def isActive(self):  # pylint: disable=invalid-name
        return True

    def update(self, *arguments):
        self.told.append(arguments)


def test_a_network_that_could_never_lease_it_is_left_alone():
    network = Network()

    class Connection:
        def networkLookupByName(self, dummy):  # pylint: disable=invalid-name
            return network

    marking.keep_address(Connection(), "n", "52:54:00:00:00:01", "198.18.1.5")
    assert network.told == []
    marking.keep_address(Connection(), "n", "52:54:00:00:00:01", "198.18.101.200")
    assert len(network.told) == 1
