#!/usr/bin/python
# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots of machines on a provider: taken, reverted to, deleted."""

from __future__ import annotations

DOCUMENTATION = r"""
module: machine_snapshot
short_description: Snapshots of machines on a provider, taken, reverted to and deleted
version_added: 0.2.0
author: virtuoso.grid contributors (@virtuoso-grid)
description:
  - A snapshot keeps a machine's disk as it is at one moment, in the disk's own file, and with O(memory) what its guest
    has in memory as well. Takes a list, opens one connection to libvirt, and returns a result per machine. One that
    fails does not keep the others from being served.
  - Which snapshots there are is told by M(virtuoso.grid.machine_info).
  - A machine with snapshots can't move to another provider, nor roll back to a version of its image. Its disk can grow,
    be captured, and the machine be hibernated. When it is removed, its snapshots go with it.
  - What a run that was killed left of a snapshot is no snapshot, and is removed by the next run that takes or deletes
    it.
options:
  state:
    description:
      - V(present) takes the snapshot where the machine hasn't one of that name. Its guest runs on, with O(memory) it
        stands still while the memory is written.
      - V(absent) deletes it.
      - V(reverted) has the machine as it was then, which is a change at every run. What it is now is lost. With its
        memory, the guest goes on where it was; without, a running machine is started again from its disk. Its
        definition for the next start stays as it is, and its disk is as large as it was then.
    type: str
    choices: [present, absent, reverted]
    default: present
  snapshot:
    description:
      - Name of the snapshot; 1 to 63 of the letters a to z, large or small, digits and C(. _ -), and none of C(. -)
        first.
      - Only with O(all) it is left out.
    type: str
  all:
    description: Whether to delete all snapshots of the machines, with O(state=absent).
    type: bool
  memory:
    description:
      - Whether to keep what the guest has in memory. Its machine must run, or be paused.
      - Without it the disk is kept as after a loss of power, or, where the guest's agent answers, with its file systems
        at rest.
    type: bool
    default: false
  description:
    description: What M(virtuoso.grid.machine_info) shows beside the name of a snapshot that is taken now.
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

- name: With what the guest has in memory
  virtuoso.grid.machine_snapshot:
    snapshot: in-flight
    memory: true
    machines:
      - name: web1

- name: Back
  virtuoso.grid.machine_snapshot:
    state: reverted
    snapshot: before-upgrade
    machines:
      - name: web1

- name: No snapshot any more, so that the machine can move
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
        - What the disk is like in a snapshot that was taken now. V(stopped) of a machine that was off; V(frozen) where
          the agent had its file systems at rest; V(memory) with the memory that belongs to it; V(crash) as after a loss
          of power. V(none) where none was taken.
      type: str
      returned: success
    clock_set:
      description: Whether the guest was told the time after it was reverted to a snapshot with memory, else V(none).
      type: bool
      returned: success
    failed: {description: Present and true where this machine failed., type: bool, returned: failure}
    msg: {description: What is wrong and what to do., type: str, returned: failure}
    failure:
      description:
        - The same for programs. Its C(code) is among C(disk_failed), C(disk_full), C(disk_inactive), C(disk_missing),
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
