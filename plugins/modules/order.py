#!/usr/bin/python
# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module: order machines, change and cancel orders."""

from __future__ import annotations

DOCUMENTATION = r"""
module: order
short_description: Order machines, change orders, cancel orders
version_added: 0.1.0
description:
  - Checks each entry of a list of wanted machines and writes the orders to the store of the information service.
  - Each machine gets its reference, its uuid as a URN, at once. It is a I(future) until it exists.
  - A bad entry fails with the reason, and doesn't affect the others.
  - A machine that is no longer in the list keeps its order. Only O(state=absent) cancels one.
extends_documentation_fragment:
  - virtuoso.grid.attributes
  - virtuoso.grid.store
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
options:
  machines:
    description:
      - The machines. Each is a mapping; C(name) and C(image) are required.
      - The other fields, their units, defaults and ranges are described in the collection's C(docs/ordering.md).
      - With O(state=absent), a name is enough in place of a mapping.
    type: list
    elements: raw
    required: true
  owner:
    description: Owner of machines that have none of their own.
    type: str
  images:
    description:
      - Names of the images that can be ordered, C(name) or C(name@version). An order of another name fails.
      - By default names of images are not checked. Images ordered by digest never are.
    type: list
    elements: str
  state:
    description:
      - With V(present), the machines are ordered, or their orders changed.
      - With V(absent), orders of machines that don't exist yet are cancelled. A machine that exists must be retired
        instead.
    type: str
    choices: [present, absent]
    default: present
  inventory:
    description:
      - Names of hosts and groups of the run's inventory, without the machines. A machine that the store doesn't know
        and that has one of them fails with C(name_taken), because plays for that host would reach the machine.
    type: list
    elements: str
    default: []
author:
  - virtuoso.grid contributors (@virtuoso-grid)
seealso:
  - module: virtuoso.grid.order_info
  - module: virtuoso.grid.placement
"""

EXAMPLES = r"""
- name: Order two machines
  virtuoso.grid.order:
    store: ~/.local/share/virtuoso/grid.db
    owner: alice
    images: [tiny, debian-12]
    machines:
      - name: web1
        image: debian-12
        vcpus: 2
        memory: 1 GiB
        users:
          - name: alice
            ssh_authorized_keys: ["{{ lookup('ansible.builtin.file', '~/.ssh/id_ed25519.pub') }}"]
      - name: probe1
        image: tiny
        memory: 192 MiB
  delegate_to: localhost
  run_once: true

- name: Cancel the order of a machine that doesn't exist yet
  virtuoso.grid.order:
    store: ~/.local/share/virtuoso/grid.db
    machines: [probe1]
    state: absent
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
machines:
  description: One result per entry, in the same order.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: Name of the machine.
      type: str
      returned: always
      sample: web1
    uuid:
      description: Its uuid, V(null) in check mode for a machine that is not ordered yet.
      type: str
      returned: success
      sample: 0c5a9d1e-6f0f-4f0e-8f4c-2a7a9f0f3f55
    reference:
      description: Its reference, V(null) where RV(machines[].uuid) is.
      type: str
      returned: success
      sample: urn:uuid:0c5a9d1e-6f0f-4f0e-8f4c-2a7a9f0f3f55
    changed:
      description: Whether the order changed.
      type: bool
      returned: always
    actions:
      description: What was done, or would be done in check mode, V(order), V(change) or V(cancel).
      type: list
      elements: str
      returned: success
    state:
      description: >-
        V(future) until room is held for it, V(placed) until it exists, then the state that was last seen (V(running),
        V(stopped), V(paused), V(hibernated), V(absent)); V(absent) after its order was cancelled.
      type: str
      returned: success
    spec:
      description: The order in canonical form, sizes in bytes; V(null) for a cancelled one.
      type: dict
      returned: success
    image:
      description: C(name) and C(digest) of the image that an existing machine is made from, else V(null).
      type: dict
      returned: success
    provider:
      description: The provider that it is on, or that holds room for it, or V(null).
      type: str
      returned: success
    generation:
      description: The number of times that the machine was moved. The copy with the highest one is the true one.
      type: int
      returned: success
    msg:
      description: What is wrong.
      type: str
      returned: failure
    failure:
      description: >-
        The error for programs. Its C(code) is one of V(invalid_order), V(invalid_name), V(invalid_size) and others
        named after the field, V(reserved_name), V(duplicate_name), V(name_taken), V(unknown_image), V(cannot_change),
        V(not_owner), V(machine_exists).
      type: dict
      returned: failure
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.virtuoso.grid.plugins.module_utils._argspec import STORE, merge
from ansible_collections.virtuoso.grid.plugins.module_utils._information.registration import orders
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store.database import Store
from ansible_collections.virtuoso.grid.plugins.module_utils._run import CONTROLLER, Result, run_module

ARGUMENTS = {
    "argument_spec": {
        "machines": {"type": "list", "elements": "raw", "required": True},
        "owner": {"type": "str"},
        "images": {"type": "list", "elements": "str"},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "inventory": {"type": "list", "elements": "str", "default": []},
    },
    "supports_check_mode": True,
}


def work(module: AnsibleModule) -> Result:
    """Order machines, or cancel orders."""
    options = module.params
    store = Store(options["store"])
    with store.reading(empty_if_missing=True) if module.check_mode else store.writing() as connection:
        machines, diffs = orders.serve(
            connection,
            options["machines"],
            owner=options["owner"],
            images=options["images"],
            absent=options["state"] == "absent",
            check=module.check_mode,
            inventory=options["inventory"],
        )
    return {"changed": any(machine["changed"] for machine in machines), "machines": machines, "diff": diffs}


def main() -> None:
    """Run the module."""
    run_module(work, where=CONTROLLER, **merge(STORE, ARGUMENTS))


if __name__ == "__main__":
    main()
