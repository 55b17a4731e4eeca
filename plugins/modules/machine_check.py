#!/usr/bin/python
# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is seen of a machine, for the doctor."""

from __future__ import annotations

DOCUMENTATION = r"""
module: machine_check
short_description: Look at a machine and try to reach it
version_added: 0.2.0
author: [virtuoso.grid contributors (@virtuoso-grid)]
description:
  - On the machine's provider, its state, its addresses by who saw them, how its network forwards, and rules of the
    firewall that may stop traffic to it.
  - On any host, whether a TCP port of the machine answers from there.
  - Changes nothing. M(virtuoso.grid.doctor) judges what it returns.
options:
  uri:
    description: Connection URI of the libvirt daemon on the host, as virsh takes it.
    type: str
    default: qemu:///system
  machine:
    description: Uuid or name of the machine, on its provider. Without it only O(addresses) are tried.
    type: str
  ordered:
    description: The address that it was ordered with.
    type: str
  addresses:
    description: Addresses to try, beside those that are seen here.
    type: list
    elements: str
    default: []
  port:
    description: TCP port.
    type: int
    required: true
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
extends_documentation_fragment:
  - virtuoso.grid.attributes
seealso:
  - module: virtuoso.grid.doctor
"""

EXAMPLES = r"""
- name: On its provider
  virtuoso.grid.machine_check:
    machine: web1
    port: 443
  register: there

- name: From here
  virtuoso.grid.machine_check:
    addresses: "{{ there.addresses }}"
    port: 443
  delegate_to: localhost
"""

RETURN = r"""
machine:
  description:
    - What is seen of it, C(present), C(state), C(seen) (lists of C(addresses), each with its C(source)), C(ordered),
      C(network), C(bridge), C(mac), C(mode) and C(rules). V(none) without O(machine).
  returned: success
  type: dict
addresses:
  description: The addresses that were tried.
  returned: success
  type: list
  elements: str
attempts:
  description: By address, C(result) (V(open), V(refused), V(timeout), V(unreachable), V(unresolved) or V(other)) and
    C(error).
  returned: success
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.virtuoso.grid.plugins.module_utils._argspec import HYPERVISOR, merge
from ansible_collections.virtuoso.grid.plugins.module_utils._doctor.facts.machine import check
from ansible_collections.virtuoso.grid.plugins.module_utils._run import Result, run_module

OPTIONS = {
    "argument_spec": {
        "machine": {"type": "str"},
        "ordered": {"type": "str"},
        "addresses": {"type": "list", "elements": "str", "default": []},
        "port": {"type": "int", "required": True},
    }
}


def work(module: AnsibleModule) -> Result:
    """The module's work."""
    params = module.params
    seen = check(params["uri"], params["machine"], params["ordered"], params["addresses"], params["port"])
    return {"changed": False, **seen}


def main() -> None:
    """The module."""
    run_module(work, supports_check_mode=True, **merge(HYPERVISOR, OPTIONS))


if __name__ == "__main__":
    main()
