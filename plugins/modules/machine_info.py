#!/usr/bin/python
# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module: the facts of the machines on a provider, and their addresses."""

from __future__ import annotations

DOCUMENTATION = r"""
module: machine_info
short_description: Facts and addresses of the machines on a provider
version_added: 0.1.0
author: virtuoso.grid contributors (@virtuoso-grid)
description:
  - Returns the facts of a provider's machines from its libvirt, with all that is needed to rebuild the store.
  - Addresses are those of the machine's network card. They come from the first of these that has any; the DHCP server
    of its libvirt network, its home (O(leases)), the host's neighbour table, its guest agent. The address of its order
    comes first where one of the last two confirms it.
  - Guests say to the last two what they like. So these count only within the prefixes of the machine's network, and
    never for an address of the host or of another machine.
options:
  machines:
    description: Uuids or names of the machines; all domains on the provider where it is left out.
    type: list
    elements: str
  wait_for_address:
    description:
      - Seconds to wait until every running machine has an address; with V(0) there is no wait.
      - A machine without one by then fails with C(no_address); its facts are returned nevertheless.
    type: int
    default: 0
  wait_for:
    description: Uuids of the machines that are waited for. All where it is left out.
    type: list
    elements: str
  leases:
    description:
      - Addresses of machines at their homes, by MAC address, as M(virtuoso.grid.lease_info) returns them. They are used
        where nothing on the provider has an address.
    type: dict
    default: {}
  prefixes:
    description:
      - Prefixes of networks, by network, such as V(192.0.2.0/24), where neither libvirt nor an address of the host's
        bridge tells them. Within them a machine's own word for its address is believed.
    type: dict
    default: {}
  usage_window:
    description: Seconds in which to measure what the running machines use, all at once; V(0) for no measurement.
    type: float
    default: 0
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
extends_documentation_fragment:
  - virtuoso.grid.attributes
  - virtuoso.grid.hypervisor
  - virtuoso.grid.depot
seealso:
  - module: virtuoso.grid.machine
"""

EXAMPLES = r"""
- name: All machines on the provider
  virtuoso.grid.machine_info:
  register: there

- name: Two machines, with their addresses
  virtuoso.grid.machine_info:
    machines: [web1, 5f0d5b1e-6c1c-4f3a-9c0f-2d6a1f0e8b11]
    wait_for_address: 120
"""

RETURN = r"""
machines:
  description: The machines, in the order of O(machines), or sorted by name. Sizes are bytes.
  returned: always
  type: list
  elements: dict
  contains:
    name: {description: Name., type: str, returned: always}
    uuid: {description: Uuid., type: str, returned: always}
    state: {description: "V(running), V(paused), V(hibernated), V(stopped) or V(absent).", type: str, returned: always}
    foreign:
      description: Whether it is a domain that is not the collection's; it has only the fields above.
      type: bool
      returned: always
    owner: {description: Who ordered it., type: str, returned: when it is there}
    image: {description: C(name) and C(digest) of its image., type: dict, returned: when it is there}
    vcpus: {description: Virtual processors., type: int, returned: when it is there}
    memory: {description: Memory., type: int, returned: when it is there}
    vcpus_max: {description: "To how many processors it can grow while it runs.", type: int, returned: when it is there}
    memory_max: {description: "To how much memory it can grow while it runs, or V(none).", type: int, returned: when it
      is there}
    disk: {description: Virtual size of its disk., type: int, returned: when it is there}
    pages:
      description: The export that it pages from, as C(host), C(port) and C(export); V(none) where its disk is on layers
        on this host.
      type: dict
      returned: when it is there
    memory_file: {description: "C(path) and C(size) of the file with a hibernated machine's memory, or V(none).", type:
      dict, returned: when it is there}
    paused_reason:
      description:
        - Why it is paused, V(user), V(no_space), V(io_error) or V(other). A machine that pages and has an V(io_error)
          has lost its source; it fails with C(source_lost).
      type: str
      returned: when it is there
    cpu_shares: {description: "Its weight among the machines, V(none) for the host's default.", type: int, returned:
      when it is there}
    cpu_limit: {description: "C(quota) microseconds that each virtual CPU may use in each C(period), or V(none).", type:
      dict, returned: when it is there}
    disk_io:
      description: Limits of its disk in a second (C(read_bytes), C(write_bytes), C(read_iops), C(write_iops)), or
        V(none).
      type: dict
      returned: when it is there
    ordered:
      description: What was ordered of its provider's resources, C(vcpus), C(memory), and the fields of C(performance)
        that were ordered.
      type: dict
      returned: when it is there
      sample: {vcpus: 1, memory: 536870912, reservation: {period: 100000, slice: 25000}}
    given:
      description: What libvirt has set of these resources (C(vcpus), C(memory), C(cpu_shares), C(cpu_limit),
        C(disk_io)); V(none) where it doesn't run.
      type: dict
      returned: when it is there
    usage:
      description:
        - What it used of these resources in O(usage_window); V(none) without a window or where it doesn't run. C(cpu)
          is CPU time in percent of one processor, including QEMU's own work; C(cpu_ceiling) is the most that its
          processors and RV(machines[].cpu_limit) allow its guest; C(disk) has bytes a second, C(read) and C(write);
          C(window) is in seconds.
      type: dict
      returned: when it is there
      sample: {cpu: 24.8, cpu_ceiling: 25.0, disk: {read: 0, write: 4096}, window: 2.001}
    snapshots:
      description:
        - Its snapshots, the oldest first, each with C(name), C(created), C(description), C(memory) (whether the guest's
          memory is kept), and C(memory_size) of that file.
      type: list
      elements: dict
      returned: when it is there
    boot: {description: What it boots from., type: list, elements: str, returned: when it is there}
    autostart: {description: Whether libvirt starts it with its provider., type: bool, returned: when it is there}
    description: {description: "Its description, or V(none).", type: str, returned: when it is there}
    extra_networks: {description: "Networks on which it has a card beside RV(machines[].network).", type: list,
      elements: str, returned: when it is there}
    network: {description: Its network., type: str, returned: when it is there}
    mac: {description: MAC address of its network card., type: str, returned: when it is there}
    addresses: {description: "Its addresses that something has seen, IPv4 first.", type: list, elements: str, returned:
      when it is there}
    address_source: {description: "V(lease), V(home), V(neighbour), V(agent) or V(none).", type: str, returned: when it
      is there}
    display: {description: "Kind, host and port of its display.", type: dict, returned: when it is there}
    generation: {description: Generation of its last start., type: int, returned: when it is there}
    site: {description: Site at which it was started., type: str, returned: when it is there}
    goal: {description: Its goal., type: str, returned: when it is there}
    tags: {description: Its tags., type: list, elements: str, returned: when it is there}
    user: {description: Login user of its image., type: str, returned: when it is there}
    python: {description: Interpreter in its image., type: str, returned: when it is there}
    packages: {description: Packages that it installs at its first start., type: list, elements: str,
      returned: when it is there}
    users: {description: Users that it makes at its first start., type: list, elements: dict, returned: when
      it is there}
    machine_type: {description: QEMU's machine type., type: str, returned: when it is there}
    virtualization: {description: V(kvm) or V(qemu)., type: str, returned: when it is there}
    restart_required: {description: Whether changes wait for its next start., type: bool, returned: when it is there}
    pending: {description: "These changes, each as the value now and then.", type: dict, returned: when it is there}
    failed: {description: Present and true where it has no address in time or lost the export that it pages from., type:
      bool, returned: failure}
    msg: {description: What is wrong., type: str, returned: failure}
    failure: {description: "The error for programs; its C(code) is C(no_address) or C(source_lost).", type: dict,
      returned: failure}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.virtuoso.grid.plugins.module_utils._argspec import DEPOT, HYPERVISOR, merge
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.state.survey import survey
from ansible_collections.virtuoso.grid.plugins.module_utils._run import Result, run_module

OPTIONS = {
    "argument_spec": {
        "machines": {"type": "list", "elements": "str"},
        "wait_for_address": {"type": "int", "default": 0},
        "wait_for": {"type": "list", "elements": "str"},
        "leases": {"type": "dict", "default": {}},
        "prefixes": {"type": "dict", "default": {}},
        "usage_window": {"type": "float", "default": 0},
    }
}


def work(module: AnsibleModule) -> Result:
    """The module's work."""
    params = module.params
    return {
        "changed": False,
        "machines": survey(
            params["uri"],
            params["machines"],
            params["wait_for_address"],
            window=params["usage_window"],
            leases=params["leases"],
            patient=params["wait_for"],
            prefixes=params["prefixes"],
        ),
    }


def main() -> None:
    """The module."""
    run_module(work, supports_check_mode=True, **merge(HYPERVISOR, DEPOT, OPTIONS))


if __name__ == "__main__":
    main()
