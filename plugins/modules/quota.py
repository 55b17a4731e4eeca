#!/usr/bin/python
# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module: set quotas, what owners may have in total."""

from __future__ import annotations

DOCUMENTATION = r"""
module: quota
short_description: Set what owners may have in total
version_added: 0.1.0
author: virtuoso.grid contributors (@virtuoso-grid)
description:
  - Sets how many machines, how many virtual CPUs, and how much memory and disk the machines of an owner may have in
    total. Placed and existing machines count.
  - The module M(virtuoso.grid.placement) refuses what would exceed a quota. What an owner has already stays his, even
    if the quota is lowered.
options:
  quotas:
    description:
      - The quotas, each a mapping of C(owner), and any of C(vcpus), C(memory), C(disk), C(machines). What is left out
        has no bound.
      - The owner V(*) means every owner without a quota of his own.
      - With O(state=absent) only the owner counts.
    type: list
    elements: raw
    required: true
  state:
    description: Whether to set or to remove these quotas.
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
  - virtuoso.grid.store
seealso:
  - module: virtuoso.grid.placement
"""

EXAMPLES = r"""
- name: Ten machines for Alice, three for anybody else
  virtuoso.grid.quota:
    store: ~/.local/share/virtuoso/grid.db
    quotas:
      - {owner: alice, machines: 10, memory: 64 GiB}
      - {owner: "*", machines: 3, vcpus: 8, memory: 8 GiB, disk: 100 GiB}
  delegate_to: localhost
"""

RETURN = r"""
quotas:
  description: One result per entry, in the same order.
  returned: always
  type: list
  elements: dict
  contains:
    name: {description: The owner as given., type: str, returned: always}
    owner: {description: The owner., type: str, returned: success}
    changed: {description: Whether his quota changed., type: bool, returned: always}
    msg: {description: What is wrong., type: str, returned: failure}
    failure:
      description: The error for programs. Its C(code) is one of V(invalid_quota), V(invalid_owner), V(invalid_size).
      type: dict
      returned: failure
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.virtuoso.grid.plugins.module_utils._argspec import STORE, merge
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store.database import Store
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.quotas import serve
from ansible_collections.virtuoso.grid.plugins.module_utils._run import CONTROLLER, Result, run_module

ARGUMENTS = {
    "argument_spec": {
        "quotas": {"type": "list", "elements": "raw", "required": True},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    },
    "supports_check_mode": True,
}


def work(module: AnsibleModule) -> Result:
    """Set the quotas."""
    options, check, store = module.params, module.check_mode, Store(module.params["store"])
    with store.reading(empty_if_missing=True) if check else store.writing() as connection:
        quotas, diffs = serve(connection, options["quotas"], absent=options["state"] == "absent", check=check)
    return {"changed": any(quota["changed"] for quota in quotas), "quotas": quotas, "diff": diffs}


def main() -> None:
    """Run the module."""
    run_module(work, where=CONTROLLER, **merge(STORE, ARGUMENTS))


if __name__ == "__main__":
    main()
