#!/usr/bin/python
# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Machines on their way from one provider to another."""

from __future__ import annotations

DOCUMENTATION = r"""
module: machine_migrate
short_description: Move machines from one provider to another
version_added: 0.2.0
author: virtuoso.grid contributors (@virtuoso-grid)
description:
  - One step of moving machines, on one of the two hosts. The role
    R(virtuoso.grid.migrate,ansible_collections.virtuoso.grid.migrate_role) puts the steps together; see its
    documentation first.
  - Takes a list, opens one connection to libvirt, moves several at a time, and returns a result per machine. One that
    fails does not keep the others from moving; the task fails when all are done.
  - A machine is there once. Its copy at the source is made unstartable before the target may start its own, and removed
    only when the target's is known to run (or to be defined, where it doesn't run). After an interruption the step
    V(look) on both hosts shows what there is.
options:
  step:
    description:
      - V(look) returns what is here of the machines, and with O(facts) what the host offers to those that come.
      - V(prepare), on the target, checks once more whether they can come, and makes room for those that come live.
      - V(send), on the source, moves live machines to the end; of others it gives the files to the target.
      - V(receive), on the target, finishes what came live (C(action=finish)), takes the files of others and defines and
        resumes them (C(action=take)), or throws away what came (C(action=discard)).
      - V(settle) carries out what was decided of a copy here. The entry's C(action) is C(restore), C(release),
        C(discard), C(finish) or C(adopt).
      - V(move), delegated to the source, makes the steps from V(prepare) to V(settle) on both hosts, for all machines
        of a journey. The action plugin does that. In check mode it only makes V(prepare).
    type: str
    choices: [look, prepare, send, receive, settle, move]
    required: true
  name:
    description: What the inventory calls this host.
    type: str
  facts:
    description: Whether the step V(look) returns RV(host).
    type: bool
    default: false
  unsettled:
    description: Whether the step V(look) returns RV(unsettled).
    type: bool
    default: false
  machines:
    description:
      - The machines, each with C(uuid) and C(name). For V(look), C(source) is the host that should have the machine,
        which returns its seed as well. For the steps after it, what P(virtuoso.grid.migrate_plan#filter) returns.
    type: list
    elements: dict
    required: true
  through:
    description: "For V(move): the last step that is made."
    type: str
    choices: [prepare, send, receive, settle]
    default: settle
  target:
    description:
      - "For V(move): the target's C(name), and whether it allows C(postcopy). For V(send) also its C(address) as this
        host reaches it, its depot's C(path), and its C(site)."
    type: dict
  source:
    description: "For V(move): the source's C(name). For V(receive) also C(host), its address as this host reaches it."
    type: dict
  images:
    description:
      - "For V(move): what each host registered of M(virtuoso.grid.image_transfer). Machines whose image it could not
        bring stay."
    type: list
    elements: dict
  socket:
    description: "For V(send): the socket on this host that leads to the target's libvirt. The step V(move) makes it."
    type: path
  parallel:
    description: How many machines move at a time.
    type: int
    default: 2
  bandwidth:
    description: The most that each machine sends in a second, for example V(50 MiB). Without it, what the link takes.
    type: str
  downtime:
    description: Milliseconds that a live machine may stand still in the end. Without it, QEMU's own 300.
    type: int
  postcopy:
    description:
      - Whether a live machine that changes its memory faster than it can be sent is moved by post-copy, where both
        hosts allow that (vm.unprivileged_userfaultfd). Its guest then runs at the target before its memory is there,
        and is lost if the link breaks meanwhile.
      - Otherwise such a guest is slowed down until it converges.
    type: bool
    default: false
  postcopy_after:
    description: Seconds after which that is decided.
    type: int
    default: 30
  stall_timeout:
    description: Seconds without progress after which a move is given up.
    type: int
    default: 30
  timeout:
    description: Seconds to wait for another run that works on the same machine.
    type: int
    default: 30
  ports:
    description: The ports on which files are given to the target. The firewall of the role C(provider) admits the
      grid's hosts to them.
    type: str
    default: 10809-10872
  progress_file:
    description: A file on the host to which the progress of long work is appended, a line of JSON for each step.
    type: path
attributes:
  check_mode:
    support: full
    details: The steps V(look) and V(prepare) check without touching anything.
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
- name: See what is here of a machine
  virtuoso.grid.machine_migrate:
    step: look
    facts: true
    machines:
      - name: web1
"""

RETURN = r"""
machines:
  description: One result per entry, in their order.
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
      returned: always
    changed:
      description: Whether anything was done.
      type: bool
      returned: always
    actions:
      description: What was done.
      type: list
      elements: str
      returned: success, but for the step look
    state:
      description: V(running), V(paused), V(stopped), V(hibernated) or V(absent).
      type: str
      returned: step look
    generation:
      description: The generation of the copy here.
      type: int
      returned: step look, where there is one
    moving:
      description: Where the copy here is on its way to, as C(to), C(generation) and C(attempt), or V(none).
      type: dict
      returned: step look, where there is one
    waited:
      description: Present and true where another run was at work on the machine and had to be waited for.
      type: bool
      returned: where it was so
    incoming:
      description: What came here and isn't a machine yet, as C(source), C(generation), C(attempt) and C(complete), or
        V(none).
      type: dict
      returned: step look
    stats:
      description: What libvirt says of a live move, with C(downtime) in milliseconds, C(bytes), C(passes), C(postcopy)
        and C(seconds).
      type: dict
      returned: step send, of a live move
    files:
      description: The files on offer, with size and allocated bytes; C(port) is where.
      type: dict
      returned: step send, of one that doesn't run
    facts:
      description: The machine as M(virtuoso.grid.machine_info) returns it.
      type: dict
      returned: steps receive and settle
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
        - The same for programs. Its C(code) is among C(address_taken), C(cpu_incompatible), C(device_tied),
          C(disk_conflict), C(disk_missing), C(foreign_domain), C(has_snapshots), C(hibernation_...), C(image_missing),
          C(incoming_invalid), C(invalid_...), C(libvirt_...), C(link_lost), C(machine_busy), C(machine_here),
          C(machine_pages), C(machine_type_missing), C(machine_unknown), C(move_failed), C(move_undone),
          C(network_missing), C(no_disk), C(no_memory), C(no_port), C(not_released), C(offer_failed), C(several_copies),
          C(source_unreachable), C(stale_generation), C(target_unreachable), C(transfer_failed), C(version_too_old),
          C(virtualization_missing), C(wrong_state).
      type: dict
      returned: failure
provider:
  description: How the inventory reaches this host, for O(virtuoso.grid.registration#module:providers).
  returned: step look
  type: dict
unsettled:
  description: The machines of which there is a copy here that is on its way, as C(uuid) and C(name).
  returned: with O(unsettled)
  type: list
  elements: dict
host:
  description: What this host offers to machines that come.
  returned: with O(facts)
  type: dict
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.virtuoso.grid.plugins.module_utils._argspec import DEPOT, HYPERVISOR, merge
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._migration.host.journey import STEPS, Journey, Params
from ansible_collections.virtuoso.grid.plugins.module_utils._run import Result, run_module
from ansible_collections.virtuoso.grid.plugins.module_utils._units import parse_size

OPTIONS = {
    "argument_spec": {
        "step": {"type": "str", "required": True, "choices": [*STEPS, "move"]},
        "name": {"type": "str"},
        "facts": {"type": "bool", "default": False},
        "unsettled": {"type": "bool", "default": False},
        "machines": {"type": "list", "elements": "dict", "required": True},
        "through": {"type": "str", "choices": [*STEPS[1:]], "default": STEPS[-1]},
        "target": {"type": "dict"},
        "source": {"type": "dict"},
        "images": {"type": "list", "elements": "dict"},
        "socket": {"type": "path"},
        "parallel": {"type": "int", "default": 2},
        "bandwidth": {"type": "str"},
        "downtime": {"type": "int"},
        "postcopy": {"type": "bool", "default": False},
        "postcopy_after": {"type": "int", "default": 30},
        "stall_timeout": {"type": "int", "default": 30},
        "timeout": {"type": "int", "default": 30},
        "ports": {"type": "str", "default": "10809-10872"},
        "progress_file": {"type": "path"},
    }
}
ARGUMENTS = merge(HYPERVISOR, DEPOT, OPTIONS)


def work(module: AnsibleModule) -> Result:
    """The module's work."""
    if module.params["step"] == "move":
        raise GridError(
            "invalid_step",
            "the step move is made by the action plugin of this module",
            remedy="Use the module in a play, not by itself",
        )
    bandwidth = module.params["bandwidth"]
    params = {**module.params, "bandwidth": parse_size(bandwidth, "bandwidth", minimum=1) if bandwidth else None}
    return Journey(t.cast(Params, params), module.check_mode).run()


def main() -> None:
    """The module."""
    run_module(work, supports_check_mode=True, **ARGUMENTS)


if __name__ == "__main__":
    main()
