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
      - V(look) tells what is here of the machines, and with O(facts) what the host offers to those that come.
      - V(prepare), on the target, checks once more whether they can come, and makes room for those that come live.
      - V(send), on the source, moves live machines to the end; of others it gives the files to the target.
      - V(receive), on the target, finishes what came live (C(action=finish)), takes the files of others and defines and
        resumes them (C(action=take)), or throws away what came (C(action=discard)).
      - V(move), delegated to the source, makes the steps from V(prepare) to V(settle) on both hosts, for all machines
        of a journey. The action plugin does that; it starts the module that comes next while the one before works,
        where the connections are pipelined. In check mode it only makes V(prepare).
      - V(settle) carries out what was decided of a copy here. The entry's C(action) is C(restore), C(release),
        C(discard), C(finish) or C(adopt).
      - V(all), of one task for the whole play, looks on all O(hosts), decides, and makes the steps of V(move) for
        machines that need nothing else first. It starts one module a host, which makes all steps there (V(serve), which
        the action plugin alone uses), and needs connections that are pipelined. Where that isn't possible, or there is
        more to be done (an image is missing, an earlier move was interrupted, another run has a machine), it does
        nothing and returns RV(over=false).
    type: str
    choices: [look, prepare, send, receive, settle, move, all, serve]
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
      - The machines, each with C(uuid) and C(name), and for the steps after V(look) what the filters of the role give
        them.
    type: list
    elements: dict
    required: true
  target:
    description:
      - "For V(send) and V(move): the target's C(name), its C(address) as this host reaches it, its depot's C(path), its
        C(site), and whether it allows C(postcopy)."
    type: dict
  source:
    description:
      - "For V(receive): the source's C(name) and C(host), its address. For V(move): its C(name), its C(address) as the
        target reaches it, and its depot's C(path)."
    type: dict
  record:
    description:
      - "For V(move): the information service that is told of the machines as soon as they have arrived, by C(store),
        and its C(providers), as M(virtuoso.grid.registration) takes them. A machine that it has been told of is
        returned with C(recorded). Where that doesn't succeed nothing fails: it is left to
        M(virtuoso.grid.registration)."
    type: dict
  hosts:
    description:
      - "For V(all): the hosts to look at, each with its C(name), its C(address) as the others reach it, its depot's
        C(path), its C(site), and the C(provider) that O(record) is told."
    type: list
    elements: dict
  plan:
    description: "For V(all): C(mode), C(dead), C(speeds), C(reserve), C(per_host) and C(per_link), as the role has
      them; and C(networks), the names of those that have to follow machines."
    type: dict
  socket:
    description: "For V(send): the socket on this host that leads to the target's libvirt. The action plugin makes it."
    type: path
  hold:
    description: A file that the module waits for before it begins, and that has O(machines) and O(socket). The action
      plugin makes it.
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
over:
  description: Whether nothing is left to do.
  returned: step all
  type: bool
rows:
  description: What became of each machine, for M(virtuoso.grid.report).
  returned: step all, where it is over
  type: list
  elements: dict
seen:
  description: The machines where they are, for M(virtuoso.grid.registration); those with C(recorded) are in the store
    already.
  returned: step all, where it is over
  type: list
  elements: dict
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

import contextlib
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.virtuoso.grid.plugins.module_utils._argspec import DEPOT, HYPERVISOR, merge
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._hold import Words, word
from ansible_collections.virtuoso.grid.plugins.module_utils._migration.host.journey import STEPS, Journey
from ansible_collections.virtuoso.grid.plugins.module_utils._run import Result, answer, run_module
from ansible_collections.virtuoso.grid.plugins.module_utils._units import parse_size

BY_PLUGIN = ("move", "all")

OPTIONS = {
    "argument_spec": {
        "step": {"type": "str", "required": True, "choices": [*STEPS, *BY_PLUGIN, "serve"]},
        "name": {"type": "str"},
        "facts": {"type": "bool", "default": False},
        "unsettled": {"type": "bool", "default": False},
        "machines": {"type": "list", "elements": "dict", "required": True},
        "target": {"type": "dict"},
        "source": {"type": "dict"},
        "record": {"type": "dict"},
        "hosts": {"type": "list", "elements": "dict"},
        "plan": {"type": "dict"},
        "socket": {"type": "path"},
        "hold": {"type": "path"},
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


def params_of(params: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """The options as a journey takes them. :raises GridError: ``invalid_...``."""
    bandwidth = params["bandwidth"]
    return {**params, "bandwidth": parse_size(bandwidth, "bandwidth", minimum=1) if bandwidth else None}


def work(module: AnsibleModule) -> Result:
    """The module's work."""
    if module.params["step"] in BY_PLUGIN or (module.params["step"] == "serve" and not module.params["hold"]):
        step = module.params["step"]
        raise GridError(
            "invalid_step",
            f"the step {step} is made by the action plugin of this module",
            remedy="Use the module in a play, not by itself",
        )
    if module.params["step"] == "serve":
        return serve(module)
    params = params_of(module.params)
    if params["hold"]:
        told = word(params["hold"])
        params.update(machines=told.get("machines") or [], socket=told.get("socket"))
    return Journey(params, module.check_mode).run()


def serve(module: AnsibleModule) -> Result:
    """One step after the other, each as its word says, until one says nothing."""
    validator = ArgumentSpecValidator(ARGUMENTS["argument_spec"])
    words = Words(module.params["hold"])

    def step(told: t.Mapping[str, t.Any]) -> Result:
        checked = validator.validate({**told, "progress_file": module.params["progress_file"]})
        if checked.error_messages:
            raise GridError("invalid_options", "; ".join(checked.error_messages), remedy="Give what the step takes")
        return Journey(params_of(checked.validated_parameters), module.check_mode).run()

    with contextlib.closing(words):
        while True:
            told = words.next()
            if not told:
                return {"changed": False, "machines": []}
            result = answer(lambda told=told: step(told))
            if not words.answer(result):
                # Who asked may still hear how this ends.
                return result


def main() -> None:
    """The module."""
    run_module(work, supports_check_mode=True, **ARGUMENTS)


if __name__ == "__main__":
    main()
