#!/usr/bin/python
# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module: the network that machines join by default."""

from __future__ import annotations

DOCUMENTATION = r"""
module: provider_network
short_description: The libvirt network with NAT and DHCP that machines join by default
version_added: 0.2.0
author: virtuoso.grid contributors (@virtuoso-grid)
description:
  - Defines the network, starts it, and has libvirt start it at boot.
  - Another range for DHCP takes effect at once. Any other change needs the network's restart. Where machines run on it,
    it is kept for the next start, and RV(restart_required) tells so.
options:
  name:
    description: Name of the libvirt network. Another name is another network; the old one stays, with its machines.
    type: str
    required: true
  bridge:
    description: Name of its bridge, 15 characters at most.
    type: str
    required: true
  address:
    description: IPv4 address of the host on the network.
    type: str
    required: true
  prefix:
    description: Length of the network's prefix in bits.
    type: int
    required: true
  dhcp_start:
    description: First address that DHCP gives.
    type: str
    required: true
  dhcp_end:
    description: Last address that DHCP gives.
    type: str
    required: true
  restart:
    description:
      - Whether the network may be restarted while machines run on it. They are cut off for a moment, and plugged in
        again; they ask for another address when their lease ends, or when they are started anew.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
extends_documentation_fragment:
  - virtuoso.grid.attributes
  - virtuoso.grid.hypervisor
"""

EXAMPLES = r"""
- name: Have the network for machines
  virtuoso.grid.provider_network:
    name: virtuoso
    bridge: virtuoso0
    address: 192.168.140.1
    prefix: 24
    dhcp_start: 192.168.140.2
    dhcp_end: 192.168.140.254
"""

RETURN = r"""
actions:
  description: What was done, C(define), C(start), C(range), C(restart), C(autostart).
  returned: success
  type: list
  elements: str
restart_required:
  description: Whether the change waits for the network's next start.
  returned: success
  type: bool
machines:
  description: The machines that run on it, and are cut off by a restart.
  returned: success
  type: list
  elements: str
failure:
  description: The error for programs; its C(code) is C(invalid_network), or one of libvirt's.
  returned: failure
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.virtuoso.grid.plugins.module_utils._argspec import HYPERVISOR, merge
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.nat_network import bring
from ansible_collections.virtuoso.grid.plugins.module_utils._run import Result, run_module

_TEXTS = ("name", "bridge", "address", "dhcp_start", "dhcp_end")
OPTIONS = {
    "argument_spec": {
        **{field: {"type": "str", "required": True} for field in _TEXTS},
        "prefix": {"type": "int", "required": True},
        "restart": {"type": "bool", "default": False},
    },
    "supports_check_mode": True,
}


def work(module: AnsibleModule) -> Result:
    """The module's work."""
    params = module.params
    return bring(params["uri"], params, params["restart"], module.check_mode)


def main() -> None:
    """Run the module."""
    run_module(work, **merge(HYPERVISOR, OPTIONS))


if __name__ == "__main__":
    main()
