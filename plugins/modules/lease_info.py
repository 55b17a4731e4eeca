#!/usr/bin/python
# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module: the addresses of machines at their home."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lease_info
short_description: Addresses of machines at their home
version_added: 0.2.0
author: virtuoso.grid contributors (@virtuoso-grid)
description:
  - Reads the leases of the home's DHCP server, where the role
    R(virtuoso.grid.home,ansible_collections.virtuoso.grid.home_role) runs it, and the home's neighbour table, which has
    machines that got their address elsewhere and have talked to the home.
options:
  network:
    description: The network, as orders name it.
    type: str
    required: true
  macs:
    description: MAC addresses of machines; by default all that are known.
    type: list
    elements: str
  wait:
    description: Seconds to wait until all of O(macs) have an address.
    type: int
    default: 0
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
extends_documentation_fragment:
  - virtuoso.grid.attributes
seealso:
  - module: virtuoso.grid.lease
"""

EXAMPLES = r"""
- name: Wait for the address of a machine
  virtuoso.grid.lease_info:
    network: lan
    macs: ["72:4e:0a:31:c2:5d"]
    wait: 60
  delegate_to: home1
  register: there
"""

RETURN = r"""
leases:
  description: The known addresses, by MAC address; machines without an address are left out.
  returned: success
  type: dict
  sample: {"72:4e:0a:31:c2:5d": {address: 192.168.77.50, name: web1, source: lease}}
missing:
  description: Those of O(macs) that have no address.
  returned: success
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.virtuoso.grid.plugins.module_utils._argspec import Spec
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.home.reservations import Home
from ansible_collections.virtuoso.grid.plugins.module_utils._run import Result, run_module

OPTIONS: Spec = {
    "argument_spec": {
        "network": {"type": "str", "required": True},
        "macs": {"type": "list", "elements": "str"},
        "wait": {"type": "int", "default": 0},
    },
    "supports_check_mode": True,
}


def work(module: AnsibleModule) -> Result:
    """The module's work."""
    home, macs = Home(module.params["network"]), module.params["macs"]
    wanted = None if macs is None else [mac.lower() for mac in macs]
    found = home.addresses() if wanted is None else home.wait(wanted, module.params["wait"])
    leases = {
        mac: {"address": lease.address, "name": lease.name, "source": lease.source} for mac, lease in found.items()
    }
    return {"changed": False, "leases": leases, "missing": [mac for mac in wanted or () if mac not in found]}


def main() -> None:
    """Run the module."""
    run_module(work, **OPTIONS)


if __name__ == "__main__":
    main()
