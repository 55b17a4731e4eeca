# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of interfaces."""

from __future__ import annotations

from ansible_collections.virtuoso.grid.plugins.filter.networks import FilterModule
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.host.interfaces import cable_name

LONGEST = 15
"""Of an interface's name; netdevice(7)."""


def test_the_cable_that_the_role_makes_has_the_name_that_the_rules_look_for():
    port, other = FilterModule().filters()["network_interfaces"]("a-network-of-a-long-name")["cable"]
    assert port == cable_name("a-network-of-a-long-name") != other
    assert max(map(len, (port, other))) <= LONGEST
    # Homes that are tied have it so: another would be one more cable.
    assert cable_name("lan") == "vh094a367b02"
