#!/usr/bin/python
# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module: find sets of resources."""

from __future__ import annotations

DOCUMENTATION = r"""
module: find
short_description: Find hosts, networks, images, and sets of them
version_added: 0.2.0
description:
  - Answers a question from the store of the information service within a deadline. The question has conditions on each
    object, on sums over a set of them, and on what must be the same or different within the set.
  - The result says whether it is complete, a random sample of valid answers, or cut by the deadline, and what it took.
    Each answer in it is valid.
extends_documentation_fragment:
  - virtuoso.grid.attributes
  - virtuoso.grid.store
  - virtuoso.grid.find
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
author:
  - virtuoso.grid contributors (@virtuoso-grid)
seealso:
  - module: virtuoso.grid.order_info
  - plugin: virtuoso.grid.find
    plugin_type: lookup
"""

EXAMPLES = r"""
- name: Physical machines that can instantiate a machine of 1 GiB
  virtuoso.grid.find:
    store: ~/.local/share/virtuoso/grid.db
    of: provider
    where:
      - memory_available >= 1 GiB
    include: [physical]
    order: [-memory_available]
  delegate_to: localhost
  run_once: true

- name: Sets of four different machines on the same network with 512 MiB to 1 GiB in total, as many as a second finds
  virtuoso.grid.find:
    store: ~/.local/share/virtuoso/grid.db
    of: machine
    size: 4
    same: [network]
    sum:
      - memory >= 512 MiB
      - memory <= 1 GiB
    within: 1 s
  delegate_to: localhost
  run_once: true

- name: A database server and a front end of one owner on different providers near him
  virtuoso.grid.find:
    store: ~/.local/share/virtuoso/grid.db
    members:
      db: {of: machine, where: [name like db%, memory >= 2 GiB]}
      web: {of: machine, where: [name like web%]}
    join: [db.owner == web.owner, db.provider != web.provider]
    scope: {near: home1, latency: 20 ms}
  delegate_to: localhost
  run_once: true

- name: How many machines each owner has
  virtuoso.grid.find:
    store: ~/.local/share/virtuoso/grid.db
    sql: SELECT owner, count(*) AS machines FROM orders GROUP BY owner
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
found:
  description:
    - The answers. One about a single object is a mapping of its columns.
    - One about a set has RV(found[].members), a list of such mappings (with C(member), its name, where members have
      names), and RV(found[].sum).
  returned: success
  type: list
  elements: dict
  contains:
    members:
      description: The members of a set.
      type: list
      elements: dict
      returned: for sets
    sum:
      description: The sums that the question has bounds for, in bytes where they are sizes.
      type: dict
      returned: for sets
answer:
  description: >-
    V(complete) if these are all answers, or the first O(limit) in their order; V(sample) if they were drawn at random;
    V(cut) if the deadline ended the search.
  returned: success
  type: str
more:
  description: Whether there are more answers than O(limit); V(null) if that isn't known.
  returned: success
  type: bool
seed:
  description: The seed of the sample.
  returned: success
  type: int
cost:
  description: >-
    What it took. C(seconds), C(method), the number of C(statements), of C(rows) read, of C(draws), and of
    C(combinations), the sets before conditions on sets are checked, if they were counted; and whether the deadline
    passed (C(expired)). A sample may then be smaller than O(limit).
  returned: success
  type: dict
failure:
  description: >-
    The error for programs. Its C(code) is one of V(unknown_kind), V(unknown_column), V(unknown_unit), V(unknown_site),
    V(invalid_condition), V(invalid_value), V(invalid_question), V(impossible_sum), V(invalid_deadline),
    V(invalid_duration), V(sql_not_read_only), V(invalid_sql), or a code of the store's errors.
  returned: failure
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.virtuoso.grid.plugins.module_utils._argspec import FIND, STORE, merge
from ansible_collections.virtuoso.grid.plugins.module_utils._information.find.answer import find
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store.database import Store
from ansible_collections.virtuoso.grid.plugins.module_utils._run import CONTROLLER, Result, run_module


def work(module: AnsibleModule) -> Result:
    """Answer the question."""
    return {"changed": False, **find(Store(module.params["store"]), module.params)}


def main() -> None:
    """Run the module."""
    run_module(work, where=CONTROLLER, supports_check_mode=True, **merge(STORE, FIND))


if __name__ == "__main__":
    main()
