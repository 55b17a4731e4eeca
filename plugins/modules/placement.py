#!/usr/bin/python
# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module: choose providers for machines."""

from __future__ import annotations

DOCUMENTATION = r"""
module: placement
short_description: Choose a provider for each machine and hold room for it there
version_added: 0.1.0
description:
  - Chooses, among the given providers, one that can hold each machine, and gives the reason why others can't.
  - A provider can hold a machine if it is reachable, has the image's architecture, has the machine's network active, is
    at the site and has the features that were ordered, has what the machine must be with and nothing that it must be
    apart from, can admit its reservation, and has memory, CPU and disk free, less what is held for machines placed
    there by this and other plays and what is reserved.
  - An owner can't get more than his quota (module M(virtuoso.grid.quota)).
  - A first answer is found at once and improved until the deadline. That reads one state of the store and locks
    nothing. Then, in one transaction, the module holds what still fits and chooses again for the rest, so that two
    plays at a time can't promise the same memory twice.
  - Room is held until the machine is seen on its provider, or its order is cancelled, or O(hold) seconds have passed.
  - A machine that exists stays where it is. If its provider is not reachable in this run, it fails and is not moved,
    because it may be running there.
  - The same input and seed give the same answer, unless the deadline ended the search (RV(solver.cut)).
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
      - The machines, each a mapping of C(name), C(uuid), C(vcpus), C(memory), C(disk), C(network), C(goal) and
        optionally C(extra_networks), C(owner), C(tags), C(site), C(architecture), C(features), C(affinity),
        C(anti_affinity), C(performance) as the module M(virtuoso.grid.order) returned them, and C(image), a mapping of
        C(name), C(digest), C(size), C(virtual_size) and optionally C(architecture) as the module M(virtuoso.grid.image)
        returned it.
      - In check mode the uuid may be V(null).
      - The goal V(balance) evens out what providers have allocated, V(pack) fills the fullest first, V(price) and
        V(interactivity) take the provider with the least C(price) or C(latency). Without these they are V(balance).
    type: list
    elements: raw
    required: true
  providers:
    description:
      - The providers, each a mapping of C(name), C(site), and what the module M(virtuoso.grid.provider_info) returned
        of it, or C(unreachable=true) and the C(reason). C(price) (a number), C(latency) (a number, or a mapping from
        home to number), C(features) (a list) and C(speed) (bytes per second at which images arrive) may be added.
    type: list
    elements: raw
    required: true
  host_reserve:
    description: Memory that is left to each provider itself.
    type: str
    default: 256 MiB
  cpu_overcommit:
    description: How many virtual CPUs one CPU of a provider may carry.
    type: float
    default: 16.0
  memory_overcommit:
    description: How many bytes of guest memory one byte of a provider's may carry. Reservations are never
      overcommitted.
    type: float
    default: 1.0
  disk_overcommit:
    description: The same for disks.
    type: float
    default: 1.0
  reservation_bound:
    description:
      - Which part of a provider's CPUs may be reserved, above 0 and up to 1. A reservation is admitted if, at every
        moment of it, the sum of slice divided by period on the provider is at most its number of CPUs times this.
    type: float
    default: 0.9
  hold:
    description: Seconds for which room is held for a machine that is placed and doesn't exist yet.
    type: int
    default: 86400
  within:
    description: Seconds to improve the first answer. Only used if there is something to choose for several machines.
    type: float
    default: 5.0
  seed:
    description: Seed of the search.
    type: int
    default: 0
  solver:
    description:
      - V(auto) improves the answer by OR-Tools' CP-SAT if it is installed in the Python that runs the module, and else
        like V(local).
      - V(local) is a local search; V(greedy) keeps the first answer.
    type: str
    choices: [auto, local, greedy]
    default: auto
  homes:
    description: The home of each owner. It selects the latency of providers that have one by home.
    type: dict
    default: {}
author:
  - virtuoso.grid contributors (@virtuoso-grid)
seealso:
  - module: virtuoso.grid.order
  - module: virtuoso.grid.provider_info
"""

EXAMPLES = r"""
- name: Place what was ordered
  virtuoso.grid.placement:
    store: ~/.local/share/virtuoso/grid.db
    machines:
      - name: web1
        uuid: 0c5a9d1e-6f0f-4f0e-8f4c-2a7a9f0f3f55
        vcpus: 2
        memory: 1 GiB
        image: {name: debian-12@1, digest: "sha256:{{ 'a' * 64 }}", size: 225443840, virtual_size: 2147483648}
    providers:
      - "{{ {'name': 'provider1', 'site': 'north'} | combine(hostvars['provider1'].virtuoso__info.provider) }}"
      - name: provider2
        unreachable: true
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
machines:
  description: One result per machine, in the same order.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: Name of the machine.
      type: str
      returned: always
    uuid:
      description: Its uuid, or V(null) in check mode.
      type: str
      returned: success
    provider:
      description: Where it is to be.
      type: str
      returned: success
      sample: provider1
    site:
      description: The provider's site.
      type: str
      returned: success
    changed:
      description: Whether it was placed now.
      type: bool
      returned: always
    actions:
      description: V(place), or nothing.
      type: list
      elements: str
      returned: success
    reasons:
      description: Why other providers can't hold it, one reason for each.
      type: dict
      returned: success
      sample:
        provider2: needs 8 GiB of memory, 3.2 GiB free
    generation:
      description: The machine's generation.
      type: int
      returned: success
    msg:
      description: What is wrong.
      type: str
      returned: failure
    failure:
      description: >-
        The error for programs. Its C(code) is one of V(no_provider) (with C(reasons)), V(provider_unreachable),
        V(several_copies), V(quota_exceeded), V(impossible_affinity), V(affinity_unknown), V(disk_too_small),
        V(not_ordered), V(duplicate_name), V(invalid_order), V(invalid_goal), V(invalid_size), V(invalid_vcpus),
        V(invalid_reservation), V(invalid_duration), V(invalid_time).
      type: dict
      returned: failure
solver:
  description: How the answer was found.
  returned: always
  type: dict
  contains:
    engine: {description: "V(greedy), V(local search) or V(cp-sat).", type: str, returned: always, sample: cp-sat}
    library: {description: Whether OR-Tools is installed., type: bool, returned: always}
    greedy: {description: Cost of the first answer in points; see docs/placement.md., type: float, returned: always}
    cost: {description: Cost of this answer., type: float, returned: always}
    optimal: {description: Whether CP-SAT has proven that there is no better one., type: bool, returned: always}
    gap: {description: "The most that it can be worse than the best answer, as a part of its cost; V(none) if that isn't
      known.", type: float, returned: always}
    cut: {description: Whether the deadline ended the search; another run may then have another answer., type: bool,
      returned: always}
machine_type:
  description: The newest C(pc-q35) machine type that all reachable providers share, or V(null).
  returned: always
  type: str
  sample: pc-q35-7.2
"""

import dataclasses

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.virtuoso.grid.plugins.module_utils._argspec import STORE, merge
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store.database import Store
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.cp_sat import available
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.holding import place, propose
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.inputs import read_request
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.model import newest_machine_type
from ansible_collections.virtuoso.grid.plugins.module_utils._run import CONTROLLER, Result, run_module

ARGUMENTS = {
    "argument_spec": {
        "machines": {"type": "list", "elements": "raw", "required": True},
        "providers": {"type": "list", "elements": "raw", "required": True},
        "host_reserve": {"type": "str", "default": "256 MiB"},
        "cpu_overcommit": {"type": "float", "default": 16.0},
        "memory_overcommit": {"type": "float", "default": 1.0},
        "disk_overcommit": {"type": "float", "default": 1.0},
        "reservation_bound": {"type": "float", "default": 0.9},
        "hold": {"type": "int", "default": 86400},
        "within": {"type": "float", "default": 5.0},
        "seed": {"type": "int", "default": 0},
        "solver": {"type": "str", "choices": ["auto", "local", "greedy"], "default": "auto"},
        "homes": {"type": "dict", "default": {}},
    },
    "supports_check_mode": True,
}


def work(module: AnsibleModule) -> Result:
    """Search on one state of the store, then hold room in a transaction."""
    check, request = module.check_mode, read_request(module.params)
    store = Store(module.params["store"])
    if not check:
        with store.writing():
            pass  # creates or migrates the store, which a reader can't do
    with store.reading(empty_if_missing=check) as connection:
        proposal, report = propose(connection, request, check=check)
        if check:
            machines, diffs = place(connection, request, check=True, proposal=proposal)
    if not check:
        with store.writing() as connection:
            machines, diffs = place(connection, request, check=False, proposal=proposal)
    return {
        "changed": any(machine["changed"] for machine in machines),
        "machines": machines,
        "machine_type": newest_machine_type(request.providers),
        "solver": {**dataclasses.asdict(report), "library": available()},
        "diff": diffs,
    }


def main() -> None:
    """Run the module."""
    run_module(work, where=CONTROLLER, **merge(STORE, ARGUMENTS))


if __name__ == "__main__":
    main()
