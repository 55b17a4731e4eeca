#!/usr/bin/python
# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module: write what was seen of hosts and machines to the store."""

from __future__ import annotations

DOCUMENTATION = r"""
module: registration
short_description: Update the information service with what was seen of hosts and machines
version_added: 0.1.0
description:
  - Writes providers and homes with what they reported, and machines with what was seen of them, to the store.
  - A future machine that was seen on a provider exists from then on.
  - If the store was lost, a machine gets its row and its order back from what its provider reports. Domains that were
    not made by this collection (C(foreign)) are ignored, unless their provider is among O(complete).
  - A bad entry fails with the reason, and doesn't affect the others.
extends_documentation_fragment:
  - virtuoso.grid.attributes
  - virtuoso.grid.store
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
options:
  providers:
    description:
      - The hosts, each a mapping of C(name), C(site), C(kind) (V(provider), the default, or V(home)), C(facts) (what
        M(virtuoso.grid.provider_info) returned of it), and how they are reached, C(address), C(port), C(user),
        C(identity_file), C(ssh_args), as values without templates. The inventory reaches machines through their
        provider by these. C(price) is that of an hour, a number in whatever currency the grid reckons in.
      - What is left out stays as it is.
    type: list
    elements: raw
    default: []
  machines:
    description:
      - The machines, each a mapping as M(virtuoso.grid.machine_info) or M(virtuoso.grid.machine) returned it, and
        C(provider), the name of the provider that it was seen on. What is left out stays as it is.
    type: list
    elements: raw
    default: []
  gone:
    description: The uuids of machines that were retired. All their rows are deleted.
    type: list
    elements: str
    default: []
  complete:
    description:
      - Names of providers of which O(machines) has all machines, as M(virtuoso.grid.machine_info) returns them by
        default.
      - A machine that should be there and was seen nowhere is marked V(vanished). Foreign domains there are written to
        the store, and marked as missing when they are gone. Nothing is deleted.
    type: list
    elements: str
    default: []
  samples:
    description:
      - Measurements, each a mapping of C(object), the name or uuid of a site, host or machine; C(peer), another one,
        for a measurement between two; C(metric), for example V(latency), in seconds; C(value); and C(time), ISO 8601 in
        UTC, by default now.
    type: list
    elements: raw
    default: []
  networks:
    description:
      - All networks of the overlay, each a mapping of C(name), C(home) (the name of a host), C(vni), C(mtu) and
        C(sites). A field that is left out keeps its value.
      - The inventory reaches the machines of a network through its home, if that is registered (O(providers)).
      - Networks of the store that are not in the list are deleted. Without the list they stay.
    type: list
    elements: dict
  links:
    description:
      - All links of the overlay, each a mapping of C(network), C(between) (two hosts), C(sites) (theirs), C(kind),
        C(transport), C(reason), C(vni), C(mtu). As with O(networks) the list is complete.
    type: list
    elements: dict
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
  - module: virtuoso.grid.provider_info
  - module: virtuoso.grid.machine_info
"""

EXAMPLES = r"""
- name: Register a provider and what runs on it
  virtuoso.grid.registration:
    store: ~/.local/share/virtuoso/grid.db
    providers:
      - name: provider1
        site: north
        address: 198.18.0.21
        user: root
        facts: "{{ hostvars['provider1'].virtuoso__info.provider }}"
    machines: "{{ hostvars['provider1'].virtuoso__machines.machines | map('combine', {'provider': 'provider1'}) }}"
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
providers:
  description: One result per host, in the same order.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: Name of the host.
      type: str
      returned: always
    changed:
      description: Whether anything except measurements and times changed.
      type: bool
      returned: always
    actions:
      description: V(register), V(update), or nothing.
      type: list
      elements: str
      returned: success
    msg:
      description: What is wrong.
      type: str
      returned: failure
    failure:
      description: The error for programs. Its C(code) is V(invalid_host), V(invalid_address) and others named after the
        field, V(no_site), V(name_taken).
      type: dict
      returned: failure
machines:
  description: One result per machine, in the same order, without foreign ones.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: Name of the machine.
      type: str
      returned: always
    uuid:
      description: Its uuid.
      type: str
      returned: success
    changed:
      description: Whether anything except times changed.
      type: bool
      returned: always
    actions:
      description: >-
        V(exist) for a future that exists now, V(move), V(update), V(rebuild) for one that the store didn't know,
        V(return) for one that had vanished, or nothing.
      type: list
      elements: str
      returned: success
    msg:
      description: What is wrong.
      type: str
      returned: failure
    failure:
      description: >-
        The error for programs. Its C(code) is one of V(invalid_name), V(invalid_uuid), V(invalid_state),
        V(invalid_host), V(unknown_provider), V(name_taken), V(reserved_name), V(several_copies), V(stale_copy).
      type: dict
      returned: failure
vanished:
  description: Machines that a provider among O(complete) doesn't have any more.
  returned: always
  type: list
  elements: dict
  contains: &marked
    name:
      description: Its name.
      type: str
      returned: always
    uuid:
      description: Its uuid.
      type: str
      returned: always
    provider:
      description: The provider that it should be on, or that it was seen on.
      type: str
      returned: always
    changed:
      description: Whether it was marked now.
      type: bool
      returned: always
    actions:
      description: V(vanish); for foreign ones also V(appear), V(update), V(own) for one that became a machine of the
        grid, or nothing.
      type: list
      elements: str
      returned: always
foreign:
  description: Domains on providers among O(complete) that are not the collection's; each has its C(state) too.
  returned: always
  type: list
  elements: dict
  contains: *marked
samples:
  description: One result per measurement, in the same order.
  returned: always
  type: list
  elements: dict
networks:
  description: One dictionary for each network of the overlay, with C(name), C(changed) and C(actions).
  type: list
  elements: dict
  returned: when O(networks) was given
links:
  description: One dictionary for each link of the overlay, as in RV(networks).
  type: list
  elements: dict
  returned: when O(links) was given
gone:
  description: One result per uuid of O(gone), in the same order.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: Name of the machine, or the uuid where the store doesn't know it.
      type: str
      returned: always
    uuid:
      description: Its uuid.
      type: str
      returned: always
    changed:
      description: Whether it was known.
      type: bool
      returned: always
    actions:
      description: V(forget), or nothing.
      type: list
      elements: str
      returned: always
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.virtuoso.grid.plugins.module_utils._argspec import STORE, merge
from ansible_collections.virtuoso.grid.plugins.module_utils._information.registration.transaction import register
from ansible_collections.virtuoso.grid.plugins.module_utils._run import CONTROLLER, Result, run_module

ARGUMENTS = {
    "argument_spec": {
        "providers": {"type": "list", "elements": "raw", "default": []},
        "machines": {"type": "list", "elements": "raw", "default": []},
        "gone": {"type": "list", "elements": "str", "default": []},
        "complete": {"type": "list", "elements": "str", "default": []},
        "samples": {"type": "list", "elements": "raw", "default": []},
        "networks": {"type": "list", "elements": "dict"},
        "links": {"type": "list", "elements": "dict"},
        "inventory": {"type": "list", "elements": "str", "default": []},
    },
    "supports_check_mode": True,
}


def work(module: AnsibleModule) -> Result:
    """Write what was seen."""
    return register(module.params["store"], module.params, check_mode=module.check_mode)


def main() -> None:
    """Run the module."""
    run_module(work, where=CONTROLLER, **merge(STORE, ARGUMENTS))


if __name__ == "__main__":
    main()
