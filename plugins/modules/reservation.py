#!/usr/bin/python
# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module: reserve CPU and memory on providers for a future time."""

from __future__ import annotations

DOCUMENTATION = r"""
module: reservation
short_description: Reserve CPU and memory on a provider for a time
version_added: 0.1.0
author: virtuoso.grid contributors (@virtuoso-grid)
description:
  - Reserves a slice of CPU time in each period, and memory, on a provider, from one time to another, for machines that
    an owner is going to order.
  - It is admitted only if, at every moment of it, the sum of slice divided by period on the provider is at most its
    number of CPUs times O(reservation_bound), the reserved memory fits into the provider, and what is placed there
    leaves room for it.
  - From its admission on, others can't use what is reserved. Whatever the owner has on that provider uses it up.
  - The reservation of one machine is a field of its order instead, C(performance.reservation).
options:
  reservations:
    description:
      - The reservations, each a mapping of C(owner), C(provider), C(from) and C(to) (ISO 8601), C(period) and C(slice)
        (for example V(100 ms) and V(20 ms)), and optionally C(cpus), the number of CPUs on which to reserve such
        slices, and C(memory).
      - Owner, provider, C(from) and C(to) identify a reservation; with O(state=absent) only they count.
    type: list
    elements: raw
    required: true
  state:
    description: Whether to make or to give up these reservations.
    type: str
    choices: [present, absent]
    default: present
  reservation_bound:
    description: Which part of a provider's CPUs may be reserved, above 0 and up to 1.
    type: float
    default: 0.9
  host_reserve:
    description: Memory that is left to each provider itself.
    type: str
    default: 256 MiB
  cpu_overcommit:
    description: How many virtual CPUs one CPU of a provider may carry.
    type: float
    default: 16.0
  memory_overcommit:
    description: How many bytes of guest memory one byte of a provider's may carry.
    type: float
    default: 1.0
  hold:
    description: Seconds for which room is held for a machine that is placed and doesn't exist yet.
    type: int
    default: 86400
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
  - module: virtuoso.grid.order
"""

EXAMPLES = r"""
- name: Half of two CPUs and 8 GiB for the course on Monday
  virtuoso.grid.reservation:
    store: ~/.local/share/virtuoso/grid.db
    reservations:
      - owner: alice
        provider: provider1
        from: 2027-03-01T08:00:00Z
        to: 2027-03-01T18:00:00Z
        period: 100 ms
        slice: 50 ms
        cpus: 2
        memory: 8 GiB
  delegate_to: localhost
"""

RETURN = r"""
reservations:
  description: One result per entry, in the same order.
  returned: always
  type: list
  elements: dict
  contains:
    name: {description: The entry's place in the list., type: str, returned: always, sample: entry 1}
    uuid: {description: "Uuid of the reservation, V(none) where there is none or none yet.", type: str, returned:
      success}
    owner: {description: Whose it is., type: str, returned: success}
    provider: {description: Where it is., type: str, returned: success}
    from: {description: Its beginning., type: str, returned: success}
    to: {description: Its end., type: str, returned: success}
    changed: {description: "Whether it was admitted, changed or given up.", type: bool, returned: always}
    msg: {description: What is wrong., type: str, returned: failure}
    failure:
      description: >-
        The error for programs. Its C(code) is one of V(reservation_refused), V(reservation_over), V(unknown_provider),
        V(provider_unmeasured), V(invalid_reservation), V(invalid_owner), V(invalid_duration), V(invalid_time),
        V(invalid_size).
      type: dict
      returned: failure
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.virtuoso.grid.plugins.module_utils._argspec import STORE, merge
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store.database import Store
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.inputs import read_rules
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.reservations import serve
from ansible_collections.virtuoso.grid.plugins.module_utils._run import CONTROLLER, Result, run_module
from ansible_collections.virtuoso.grid.plugins.module_utils._times import now

ARGUMENTS = {
    "argument_spec": {
        "reservations": {"type": "list", "elements": "raw", "required": True},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "reservation_bound": {"type": "float", "default": 0.9},
        "host_reserve": {"type": "str", "default": "256 MiB"},
        "cpu_overcommit": {"type": "float", "default": 16.0},
        "memory_overcommit": {"type": "float", "default": 1.0},
        "hold": {"type": "int", "default": 86400},
    },
    "supports_check_mode": True,
}


def work(module: AnsibleModule) -> Result:
    """Admit or give up the reservations."""
    options, check, store = module.params, module.check_mode, Store(module.params["store"])
    rules, absent = read_rules(options), options["state"] == "absent"
    with store.reading(empty_if_missing=True) if check else store.writing() as connection:
        results, diffs = serve(
            connection, options["reservations"], rules, absent=absent, check=check, hold=options["hold"], now=now()
        )
    return {"changed": any(result["changed"] for result in results), "reservations": results, "diff": diffs}


def main() -> None:
    """Run the module."""
    run_module(work, where=CONTROLLER, **merge(STORE, ARGUMENTS))


if __name__ == "__main__":
    main()
