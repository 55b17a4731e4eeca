#!/usr/bin/python
# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module: take, revert to and delete snapshots of machines on a provider."""

from __future__ import annotations

DOCUMENTATION = r"""
module: machine_snapshot
short_description: Take, revert to and delete snapshots of machines on a provider
version_added: 0.2.0
author: virtuoso.grid contributors (@virtuoso-grid)
description:
  - A snapshot keeps a machine's disk as it is at one moment, in the disk's own file, and with O(memory) the guest's
    memory as well. Takes a list, opens one connection to libvirt, and returns a result per machine. A failure affects
    only that machine.
  - M(virtuoso.grid.machine_info) lists the snapshots of machines.
  - A machine with snapshots can't move to another provider or roll back to a version of its image. Its disk can grow
    and be captured, and the machine can be hibernated. Removing it removes its snapshots.
  - What a killed run left of a snapshot doesn't count as one. The next run that takes or deletes it removes that.
options:
  state:
    description:
      - V(present) takes the snapshot if the machine has none of that name. Its guest runs on; with O(memory) it is
        paused while the memory is written.
      - V(absent) deletes it.
      - V(reverted) returns the machine to the snapshot, which is a change at every run. Its state now is lost. With
        memory, the guest goes on where it was; without, a running machine is started again from its disk. Its
        definition for the next start stays as it is, and its disk has the size that it had then.
    type: str
    choices: [present, absent, reverted]
    default: present
  snapshot:
    description:
      - Name of the snapshot; 1 to 63 letters (a to z, A to Z), digits and C(. _ -), not beginning with C(.) or C(-).
      - Leave it out only with O(all).
    type: str
  all:
    description: Whether to delete all snapshots of the machines, with O(state=absent).
    type: bool
  memory:
    description:
      - Whether to keep the guest's memory. The machine must be running or paused.
      - Without it the disk is kept as after a loss of power, or, if the guest's agent answers, with its file systems
        frozen.
    type: bool
    default: false
  description:
    description: Description of a snapshot that is taken, which M(virtuoso.grid.machine_info) shows.
    type: str
  machines:
    description: The machines, each by C(uuid) or C(name).
    type: list
    elements: dict
    required: true
  timeout:
    description: Seconds to wait for another run that works on the same machine.
    type: int
    default: 120
requirements:
  - qemu-utils
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
extends_documentation_fragment:
  - virtuoso.grid.attributes
  - virtuoso.grid.hypervisor
  - virtuoso.grid.depot
seealso:
  - module: virtuoso.grid.machine_info
  - module: virtuoso.grid.image
    description: Captures a machine's disk as a version of an image, which outlives the machine.
"""

EXAMPLES = r"""
- name: Before an upgrade
  virtuoso.grid.machine_snapshot:
    snapshot: before-upgrade
    machines:
      - name: web1
      - name: web2

- name: With the guest's memory
  virtuoso.grid.machine_snapshot:
    snapshot: in-flight
    memory: true
    machines:
      - name: web1

- name: Revert to the snapshot
  virtuoso.grid.machine_snapshot:
    state: reverted
    snapshot: before-upgrade
    machines:
      - name: web1

- name: Delete all snapshots, so that the machine can move
  virtuoso.grid.machine_snapshot:
    state: absent
    all: true
    machines:
      - name: web1
"""

RETURN = r"""
machines:
  description: One result per machine, in their order. In check mode what the real run would return.
  returned: always
  type: list
  elements: dict
  contains:
    name: {description: Name of the machine., type: str, returned: always}
    uuid: {description: Its uuid., type: str, returned: success}
    changed: {description: Whether anything was done., type: bool, returned: always}
    actions:
      description: What was done, in this order.
      type: list
      elements: str
      returned: success
      sample: [take before-upgrade]
    state: {description: "The machine's state afterwards, V(running), V(paused), V(hibernated) or V(stopped).", type:
      str, returned: success}
    snapshots: {description: Names of all its snapshots afterwards., type: list, elements: str, returned: success}
    consistent:
      description:
        - The state of the disk in a snapshot that was taken. V(stopped) for a machine that was off; V(frozen) where the
          agent froze its file systems; V(memory) with the memory that belongs to it; V(crash) as after a loss of power.
          V(none) where none was taken.
      type: str
      returned: success
    clock_set:
      description: Whether the guest's clock was set after it was reverted to a snapshot with memory, else V(none).
      type: bool
      returned: success
    failed: {description: Present and true where this machine failed., type: bool, returned: failure}
    msg: {description: What is wrong and what to do., type: str, returned: failure}
    failure:
      description:
        - The error for programs. Its C(code) is among C(disk_failed), C(disk_full), C(disk_inactive), C(disk_missing),
          C(duplicate_machine), C(foreign_domain), C(guest_frozen), C(hibernation_foreign), C(hibernation_invalid),
          C(invalid_machine), C(invalid_snapshot), C(libvirt_...), C(machine_busy), C(machine_hibernated),
          C(machine_pages), C(machine_unknown), C(no_memory_to_keep), C(snapshot_differs), C(snapshot_failed),
          C(snapshot_unknown), C(stale_generation).
      type: dict
      returned: failure
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.virtuoso.grid.plugins.module_utils._argspec import DEPOT, HYPERVISOR, merge
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.snapshots.apply import Batch
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.snapshots.plan import STATES
from ansible_collections.virtuoso.grid.plugins.module_utils._run import Result, run_module

OPTIONS = {
    "argument_spec": {
        "state": {"type": "str", "default": "present", "choices": list(STATES)},
        "snapshot": {"type": "str"},
        "all": {"type": "bool"},
        "memory": {"type": "bool", "default": False},
        "description": {"type": "str"},
        "machines": {"type": "list", "elements": "dict", "required": True},
        "timeout": {"type": "int", "default": 120},
    },
    "mutually_exclusive": [["snapshot", "all"]],
    "required_if": [
        ["state", "present", ["snapshot"]],
        ["state", "reverted", ["snapshot"]],
        ["state", "absent", ["snapshot", "all"], True],
    ],
}


def work(module: AnsibleModule) -> Result:
    """The module's work."""
    return Batch(module.params, module.check_mode).run()


def main() -> None:
    """The module."""
    run_module(work, supports_check_mode=True, **merge(HYPERVISOR, DEPOT, OPTIONS))


if __name__ == "__main__":
    main()
