#!/usr/bin/python
# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module: register machines with their names and addresses in a home's DHCP server."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lease
short_description: Names and addresses of machines in a home's DHCP server
version_added: 0.2.0
author: virtuoso.grid contributors (@virtuoso-grid)
description:
  - Registers machines, by their MAC addresses, in the DHCP server that the role
    R(virtuoso.grid.home,ansible_collections.virtuoso.grid.home_role) runs on a home. Each gets its name in the home's
    DNS, and always the same address.
  - A failure affects only that entry. The server reads the entries without a restart.
options:
  network:
    description: The network, as orders name it.
    type: str
    required: true
  machines:
    description:
      - "The machines: C(uuid), C(name) and C(mac), and optionally C(address); without it the server chooses one."
      - With O(state=absent), C(uuid) is enough.
    type: list
    elements: dict
    required: true
  state:
    description: Whether the machines are to be registered.
    type: str
    choices: [present, absent]
    default: present
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
extends_documentation_fragment:
  - virtuoso.grid.attributes
seealso:
  - module: virtuoso.grid.lease_info
"""

EXAMPLES = r"""
- name: Register a machine as web1 at its home
  virtuoso.grid.lease:
    network: lan
    machines:
      - uuid: 5f0d5b1e-6c1c-4f3a-9c0f-2d6a1f0e8b11
        name: web1
        mac: 72:4e:0a:31:c2:5d
        address: 192.168.77.50
  delegate_to: home1
"""

RETURN = r"""
machines:
  description: One result per entry, in their order.
  returned: always
  type: list
  elements: dict
  contains:
    name: {description: Name of the machine., type: str, returned: always}
    uuid: {description: Its uuid., type: str, returned: success}
    changed: {description: "Whether something was done, or would be in check mode.", type: bool, returned: always}
    actions: {description: "C(reserve), C(change reservation) or C(release).", type: list, elements: str, returned:
      success}
    state: {description: V(present) or V(absent)., type: str, returned: success}
    mac: {description: Its MAC address., type: str, returned: when O(state=present)}
    address: {description: "Its reserved address, V(none) where the server chooses.", type: str, returned: when
      O(state=present)}
    failed: {description: Present and true where it failed., type: bool, returned: failure}
    msg: {description: What is wrong and what to do., type: str, returned: failure}
    failure:
      description:
        - The error for programs. Its C(code) is among C(address_outside), C(address_taken), C(mac_taken),
          C(name_taken), C(invalid_...).
        - If the whole module fails it is C(network_missing), C(no_dhcp_server) or C(dhcp_server_stopped).
      type: dict
      returned: failure
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.virtuoso.grid.plugins.module_utils._argspec import Spec
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.entry import check_uuid
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.home.reservations import Home
from ansible_collections.virtuoso.grid.plugins.module_utils._run import Result, attempt, run_module

OPTIONS: Spec = {
    "argument_spec": {
        "network": {"type": "str", "required": True},
        "machines": {"type": "list", "elements": "dict", "required": True},
        "state": {"type": "str", "default": "present", "choices": ["present", "absent"]},
    },
    "supports_check_mode": True,
}


def work(module: AnsibleModule) -> Result:
    """Register the machines, or remove them."""
    home = Home(module.params["network"])
    with home.locked():
        there = home.reservations()
        before = {uuid: reservation.line for uuid, reservation in there.items()}
        results = []
        for entry in module.params["machines"]:
            name = str(entry.get("name") or entry.get("uuid"))[:80]

            def doing(entry: Result = entry) -> Result:
                if module.params["state"] == "present":
                    return home.reserve(entry, there, module.check_mode)
                return home.release(check_uuid(entry.get("uuid")), there, module.check_mode)

            results.append(attempt(name, doing, kind="machine", tried=f"have its name {module.params['state']}"))
        changed = any(result["changed"] for result in results)
        if changed and not module.check_mode:
            home.reload()
    after = {uuid: reservation.line for uuid, reservation in there.items()}
    diff = {
        "before": "".join(sorted(before.values())),
        "after": "".join(sorted(after.values())),
        "before_header": home.network,
        "after_header": home.network,
    }
    return {"changed": changed, "machines": results, **({"diff": diff} if changed else {})}


def main() -> None:
    """Run the module."""
    run_module(work, **OPTIONS)


if __name__ == "__main__":
    main()
