#!/usr/bin/python
# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module: the addresses of hosts, as another one resolves their names."""

from __future__ import annotations

DOCUMENTATION = r"""
module: address_info
short_description: The IP addresses of hosts of the grid, as this host resolves their names
version_added: 0.2.0
author: virtuoso.grid contributors (@virtuoso-grid)
description:
  - Resolves names on the host that is to use them, which may have another DNS or other files than the controller.
  - Changes nothing.
options:
  name:
    description: Inventory name of this host. Of itself it needs no address.
    type: str
    required: true
  hosts:
    description: Names or addresses of hosts, by their inventory names.
    type: dict
    required: true
  required:
    description: Whether it is a failure where another host has no address here.
    type: bool
    default: true
extends_documentation_fragment: [virtuoso.grid.attributes]
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
"""

EXAMPLES = r"""
- name: See by which addresses this host reaches the others
  virtuoso.grid.address_info:
    name: "{{ inventory_hostname }}"
    hosts: {provider1: 198.18.0.21, provider2: provider2.example.org}
"""

RETURN = r"""
addresses:
  description: For each host its IP addresses, IPv4 first, without loopback addresses.
  returned: success
  type: dict
  sample: {provider2: [198.18.0.22, "2001:db8::22"]}
failure:
  description: C(code) is C(address_unknown) where a host has no address here; C(hosts) lists them.
  returned: failure
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.virtuoso.grid.plugins.module_utils._addresses import reachable, resolve
from ansible_collections.virtuoso.grid.plugins.module_utils._argspec import Spec
from ansible_collections.virtuoso.grid.plugins.module_utils._run import Result, run_module

OPTIONS: Spec = {
    "argument_spec": {
        "name": {"type": "str", "required": True},
        "hosts": {"type": "dict", "required": True},
        "required": {"type": "bool", "default": True},
    },
    "supports_check_mode": True,
}


def work(module: AnsibleModule) -> Result:
    """The module's work."""
    hosts = {str(name): str(address) for name, address in module.params["hosts"].items()}
    found = {name: resolve(address) for name, address in hosts.items()}
    own, required = module.params["name"], module.params["required"]
    return {"changed": False, "addresses": reachable(found, hosts, own, required)}


def main() -> None:
    """Run the module."""
    run_module(work, **OPTIONS)


if __name__ == "__main__":
    main()
