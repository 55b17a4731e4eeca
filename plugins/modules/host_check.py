#!/usr/bin/python
# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host is, for the doctor."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_check
short_description: Gather what the doctor needs to know of a host
version_added: 0.2.0
author: [virtuoso.grid contributors (@virtuoso-grid)]
description:
  - How the host is reached and root is become there, its Python, distribution, clock, KVM, libvirt, certificates,
    space, AppArmor and firewall; and what of the other hosts' ports it reaches.
  - Needs nothing on the host but Python. A host that is not reached, or where root is not become, is a result and no
    failure.
  - For the ports, all hosts have to run it at the same time. Each listens on the ports of the grid that nothing else
    has there, for O(seconds); what connects is closed at once.
  - Changes nothing. M(virtuoso.grid.doctor) judges what it returns.
options:
  uri:
    description: Connection URI of the libvirt daemon on the host, as virsh takes it.
    type: str
    default: qemu:///system
  libvirt:
    description: Whether to look at libvirt. Without it only where the host is in the group C(providers).
    type: bool
  network:
    description: The libvirt network that machines join by default.
    type: str
    default: virtuoso
  image_server:
    description: Inventory name of the host that keeps the images.
    type: str
    default: ""
  peers:
    description: The hosts to connect to. Without it they follow from the groups C(providers), C(image_servers) and
      C(homes) and the hosts of the play.
    type: list
    elements: dict
    suboptions:
      name:
        description: Name of the host.
        type: str
        required: true
      address:
        description: Its name or address on the network.
        type: str
        required: true
      ports:
        description: TCP ports.
        type: list
        elements: int
        required: true
  seconds:
    description: How long to listen, and to try again what doesn't answer.
    type: float
    default: 5
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
extends_documentation_fragment:
  - virtuoso.grid.attributes
  - virtuoso.grid.depot
seealso:
  - module: virtuoso.grid.doctor
"""

EXAMPLES = r"""
- name: Look at each host
  virtuoso.grid.host_check:
  register: checked
"""

RETURN = r"""
host:
  description:
    - The host, with C(name), C(roles), C(peers), C(network), C(way) and C(facts).
    - C(way) has whether it was C(reached), the C(error) and its C(stage), C(user), C(become), C(become_user), whether
      there was a C(password), and between which seconds its clock's offset lies (C(offset_min), C(offset_max)).
    - C(facts) is V(none) where they could not be gathered.
  returned: success
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.virtuoso.grid.plugins.module_utils._argspec import DEPOT, HYPERVISOR, merge
from ansible_collections.virtuoso.grid.plugins.module_utils._doctor.facts.host import gather
from ansible_collections.virtuoso.grid.plugins.module_utils._run import Result, run_module

PEER = {
    "name": {"type": "str", "required": True},
    "address": {"type": "str", "required": True},
    "ports": {"type": "list", "elements": "int", "required": True},
}
OPTIONS = {
    "argument_spec": {
        "libvirt": {"type": "bool"},
        "network": {"type": "str", "default": "virtuoso"},
        "image_server": {"type": "str", "default": ""},
        "peers": {"type": "list", "elements": "dict", "options": PEER},
        "seconds": {"type": "float", "default": 5},
    }
}


def work(module: AnsibleModule) -> Result:
    """The host's half: its facts. The action plugin of this name makes the host of them."""
    params = module.params
    uri = params["uri"] if params["libvirt"] else None
    return {"changed": False, "facts": gather(uri, params["path"], params["peers"] or [], params["seconds"])}


def main() -> None:
    """The module."""
    run_module(work, supports_check_mode=True, **merge(HYPERVISOR, DEPOT, OPTIONS))


if __name__ == "__main__":
    main()
