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
  - Chooses, among the given providers, one that can hold each machine, and says of every other why it can't.
  - A provider can hold a machine if it is reachable, has the image's architecture, has the machine's network active, and has memory,
    CPU and disk free, less what is held for machines placed there by this and other plays.
  - What is chosen is held in the store, in one transaction, so that two plays at once can't promise the same memory twice.
    A machine that is cancelled or retired no longer holds anything.
  - A machine that exists stays where it is. If its provider is not reachable in this run, it fails and is not moved, because it may be
    running there.
  - The same input gives the same answer.
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
      - The machines, each a mapping of C(name), C(uuid), C(vcpus), C(memory), C(disk), C(network), C(goal) as the module
        M(virtuoso.grid.order) returned them, and C(image), a mapping of C(name), C(digest), C(size), C(virtual_size) and optionally
        C(architecture) as the module M(virtuoso.grid.image) returned it.
      - In check mode the uuid may be V(null).
      - The goal V(balance) evens out what providers have allocated, V(pack) fills the fullest first, V(price) and V(interactivity) take the
        provider with the least C(price) or C(latency), and balance where providers don't tell.
    type: list
    elements: raw
    required: true
  providers:
    description:
      - The providers, each a mapping of C(name), C(site), and what the module M(virtuoso.grid.provider_info) returned of it, or
        C(unreachable=true) and the C(reason). C(price) and C(latency) (numbers) may be added.
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
        The error for programs. Its C(code) is one of V(no_provider) (with C(reasons)), V(provider_unreachable), V(several_copies),
        V(disk_too_small), V(not_ordered), V(duplicate_name), V(invalid_order), V(invalid_size), V(invalid_vcpus).
      type: dict
      returned: failure
machine_type:
  description: The newest C(pc-q35) machine type that all reachable providers share, or V(null).
  returned: always
  type: str
  sample: pc-q35-7.2
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.virtuoso.grid.plugins.module_utils._argspec import STORE, merge
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store import Store
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.holding import place, read_provider
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.model import Rules, newest_machine_type
from ansible_collections.virtuoso.grid.plugins.module_utils._run import CONTROLLER, Result, run_module
from ansible_collections.virtuoso.grid.plugins.module_utils._units import parse_size

ARGUMENTS = {
    "argument_spec": {
        "machines": {"type": "list", "elements": "raw", "required": True},
        "providers": {"type": "list", "elements": "raw", "required": True},
        "host_reserve": {"type": "str", "default": "256 MiB"},
        "cpu_overcommit": {"type": "float", "default": 16.0},
    },
    "supports_check_mode": True,
}


def work(module: AnsibleModule) -> Result:
    """Place."""
    options = module.params
    if not 0 < options["cpu_overcommit"] <= 1000:
        raise GridError(
            "invalid_cpu_overcommit",
            f"cpu_overcommit {options['cpu_overcommit']} is out of range",
            remedy="Give a number above 0, up to 1000",
        )
    rules = Rules(parse_size(options["host_reserve"], "host_reserve"), options["cpu_overcommit"])
    providers = [read_provider(given) for given in options["providers"]]
    store = Store(options["store"])
    with store.reading(empty_if_missing=True) if module.check_mode else store.writing() as connection:
        machines, diffs = place(connection, options["machines"], providers, rules, check=module.check_mode)
    changed = any(machine["changed"] for machine in machines)
    return {"changed": changed, "machines": machines, "machine_type": newest_machine_type(providers), "diff": diffs}


def main() -> None:
    """Run the module."""
    run_module(work, where=CONTROLLER, **merge(STORE, ARGUMENTS))


if __name__ == "__main__":
    main()
