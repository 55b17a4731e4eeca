#!/usr/bin/python
# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module: define, change, start, stop and remove machines on a provider."""

from __future__ import annotations

DOCUMENTATION = r"""
module: machine
short_description: Define, change, start, stop and remove machines on a provider
version_added: 0.1.0
author: virtuoso.grid contributors (@virtuoso-grid)
description:
  - Makes machines what was ordered. Takes a list, opens one connection to libvirt, waits on its events, and returns a
    result per machine. A failure affects only that machine; the task fails when all are done.
  - What can change while a machine runs changes at once. Other changes wait for its next start and are returned in
    RV(machines[].pending). A change that is impossible is an error. RV(machines[].changes) says of each field when it
    changes; C(docs/machines.md) has the table. No disk is ever recreated or shrunk, and what others added to a domain
    stays.
  - Can be run again after an interruption at any point.
options:
  state:
    description:
      - V(present) defines the machine and leaves its power as it is; a new one stays off.
      - V(running) starts or resumes it. A hibernated machine goes on where it was, and its guest's clock is set if its
        agent answers.
      - V(paused) pauses the guest; a machine that is off is started paused.
      - V(hibernated) writes the guest's memory and the state of its devices to a compressed file beside its disk, and
        ends its run. A machine that is off has no memory and stays off, which RV(machines[].ignored) reports.
      - V(rebooted) asks the guest to reboot and waits until it has; V(reset) presses the reset button. Both are a
        change at every run.
      - V(stopped) asks the guest to shut down, by its agent or else by the power button, and waits until it is off.
      - V(restarted) does the same and starts it again, so that pending changes take effect; a machine that is off is
        started. This is a change at every run.
      - V(absent) turns it off at once and removes it with its disk.
    type: str
    choices: [present, running, paused, stopped, restarted, rebooted, reset, hibernated, absent]
    default: present
  force:
    description: Whether to pull the plug of a guest that has not shut down after O(timeout) seconds, or to reset one
      that has not rebooted.
    type: bool
    default: false
  discard:
    description: Whether a hibernated machine may lose its memory. It then starts with its disk as after a loss of
      power.
    type: bool
    default: false
  grow_filesystem:
    description:
      - Whether the root file system of a running guest grows with its disk. The guest's agent does that, with
        C(growpart) and C(resize2fs), C(xfs_growfs) or C(btrfs). If no agent answers, it grows at the guest's next boot
        if its image does so, which RV(machines[].ignored) reports.
    type: bool
    default: false
    version_added: 0.2.0
  timeout:
    description:
      - Seconds to wait for a guest to shut down, to release processors, memory or a card or to take memory, and for
        another run that works on the same machine.
    type: int
    default: 120
  parallel:
    description:
      - How many machines are started or asked to stop at a time; by default as many as the host has processors, and at
        least two.
      - Any number of guests may be waited for at a time. Guests run when all machines of the list are started, so that
        their boots don't slow down the start of the others.
    type: int
  virtualization:
    description:
      - How new machines are accelerated; V(qemu) is slow emulation, which works everywhere.
      - V(auto) is what the role R(virtuoso.grid.provider,ansible_collections.virtuoso.grid.provider_role) found when it
        tried KVM.
    type: str
    choices: [auto, kvm, qemu]
    default: auto
  machine_type:
    description:
      - QEMU's machine type of new machines, for example V(pc-q35-7.2). A machine can move to providers that have its
        type.
      - Without it, the newest q35 that the provider has.
    type: str
  display_passwords:
    description:
      - Passwords of displays, by uuid; 1 to 8 characters, because VNC uses no more. A new password takes effect at
        once.
      - The display of a machine that is left out keeps its password, or has none.
    type: dict
  machines:
    description:
      - The machines, each either as ordered or, to act on its power only, by C(uuid) or C(name).
      - "As ordered: C(uuid), C(name), C(owner), C(image) (a dictionary of C(name) and C(digest)), C(vcpus), C(memory),
        C(disk), C(packages), C(users), C(network), C(display), C(performance), C(goal), C(tags), C(vcpus_max),
        C(memory_max), C(extra_networks), C(boot), C(autostart), C(description) with the meaning that they have in an
        order, and C(generation), C(site), C(provider), C(user) (the image's login user) and C(python) (its
        interpreter)."
      - C(mtu) is the MTU of the machine's network, which its guest learns from its network card. C(mtus) has those of
        its C(extra_networks), by their names.
      - C(exists) says that the machine was seen here before. If nothing of it is left, that is an error
        (C(machine_vanished)); no empty disk takes its place.
      - "With C(paging), the result of M(virtuoso.grid.image_export) on this host, a machine is made although its image
        is not here: it pages from that export. A later run, with the image here, moves its disk to the image while the
        guest runs (action C(settle)). One with another C(paging) moves it to that export (C(repoint))."
      - Each entry is checked by itself.
    type: list
    elements: dict
    required: true
requirements:
  - python3-pycdlib
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
  - module: virtuoso.grid.display
"""

EXAMPLES = r"""
- name: A machine, running
  virtuoso.grid.machine:
    state: running
    machines:
      - uuid: 5f0d5b1e-6c1c-4f3a-9c0f-2d6a1f0e8b11
        name: web1
        owner: alice
        image:
          name: tiny@1
          digest: sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
        vcpus: 1
        memory: 512 MiB
        network: virtuoso

- name: Hibernate a machine; with state running it goes on where it was
  virtuoso.grid.machine:
    state: hibernated
    machines:
      - name: web1

- name: Shut down two machines within a minute, and pull the plug after that
  virtuoso.grid.machine:
    state: stopped
    timeout: 60
    force: true
    machines:
      - name: web1
      - uuid: 0b8ec5a5-2a6d-4b5a-8f3a-4f5a3f3f7a10
"""

RETURN = r"""
machines:
  description: One result per entry, in their order. In check mode what the real run would return.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: Name of the machine.
      type: str
      returned: always
    uuid:
      description: Its uuid, V(none) where only a name was given and the machine is not there.
      type: str
      returned: always
    changed:
      description: Whether anything was done.
      type: bool
      returned: always
    actions:
      description: What was done, in this order.
      type: list
      elements: str
      returned: success
      sample: [create disk, write seed, define, start]
    changes:
      description:
        - Each field that changed, with its value C(before) and C(after), and C(when) it takes effect, V(live), V(next
          start), or V(now) where the machine doesn't run. A display's password is shown without values.
      type: list
      elements: dict
      returned: success
      sample: [{field: vcpus, before: 1, after: 2, when: live}]
      version_added: 0.2.0
    state:
      description: V(running), V(paused), V(hibernated), V(stopped) or V(absent).
      type: str
      returned: success
    restart_required:
      description: Whether any change is in RV(machines[].pending).
      type: bool
      returned: success
    pending:
      description: Changes that wait for the next start, each as the value now and then.
      type: dict
      returned: success
      sample: {memory: [536870912, 1073741824]}
    ignored:
      description: Fields whose change has no effect any more, with the reason.
      type: dict
      returned: success
      sample: {packages: "only applied at the first boot, which was"}
    pages:
      description: Whether it pages from an export, because its image is not all here.
      type: bool
      returned: success
    display:
      description: Kind, host and port of the display; the port is V(none) while the machine doesn't run.
      type: dict
      returned: success
      sample: {type: vnc, host: 127.0.0.1, port: 5900}
    mac:
      description: MAC address of its network card.
      type: str
      returned: success
    clock_set:
      description: Whether the guest's clock was set after it was woken from hibernation; V(none) where it wasn't woken.
      type: bool
      returned: success
    failed:
      description: Present and true where this machine failed.
      type: bool
      returned: failure
    msg:
      description: What is wrong and what to do.
      type: str
      returned: failure
    failure:
      description:
        - The error for programs. Its C(code) is among C(agent_failed), C(cannot_change), C(cannot_shrink),
          C(depot_missing), C(disk_conflict), C(disk_failed), C(disk_invalid), C(disk_missing), C(disk_too_small),
          C(duplicate_machine), C(foreign_domain), C(guest_refused), C(hibernation_failed), C(hibernation_foreign),
          C(hibernation_invalid), C(hibernation_stale), C(image_missing), C(invalid_...), C(io_error),
          C(library_missing), C(libvirt_busy), C(libvirt_error), C(libvirt_unreachable), C(machine_busy),
          C(machine_hibernated), C(machine_stopped), C(machine_unknown), C(machine_vanished), C(network_missing),
          C(disk_full), C(disk_inactive), C(program_missing), C(reboot_refused), C(settle_failed), C(shutdown_refused),
          C(source_lost), C(stale_generation), C(timed_out).
      type: dict
      returned: failure
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.virtuoso.grid.plugins.module_utils._argspec import DEPOT, HYPERVISOR, merge
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.reconcile import POWER_STATES
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.life.batch import Batch
from ansible_collections.virtuoso.grid.plugins.module_utils._run import Result, run_module

OPTIONS = {
    "argument_spec": {
        "state": {"type": "str", "default": "present", "choices": list(POWER_STATES)},
        "force": {"type": "bool", "default": False},
        "discard": {"type": "bool", "default": False},
        "grow_filesystem": {"type": "bool", "default": False},
        "timeout": {"type": "int", "default": 120},
        "parallel": {"type": "int"},
        "virtualization": {"type": "str", "default": "auto", "choices": ["auto", "kvm", "qemu"]},
        "machine_type": {"type": "str"},
        "display_passwords": {"type": "dict", "no_log": True},
        "machines": {"type": "list", "elements": "dict", "required": True},
    }
}


def work(module: AnsibleModule) -> Result:
    """The module's work."""
    return Batch(module.params, module.check_mode).run()


def main() -> None:
    """The module."""
    run_module(work, supports_check_mode=True, **merge(HYPERVISOR, DEPOT, OPTIONS))


if __name__ == "__main__":
    main()
