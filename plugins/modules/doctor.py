#!/usr/bin/python
# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Findings: what is wrong with a set-up, or with the way to a machine, and what to do."""

from __future__ import annotations

DOCUMENTATION = r"""
module: doctor
short_description: Judge a set-up, and say for each finding what to do
version_added: 0.2.0
author: [virtuoso.grid contributors (@virtuoso-grid)]
description:
  - Judges what M(virtuoso.grid.host_check) and M(virtuoso.grid.machine_check) gathered, and the controller that it runs
    on. Nothing that it finds is a failure of the module; RV(verdict) says whether there are errors.
  - Changes nothing. The playbook P(virtuoso.grid.doctor#role) joins the steps.
options:
  hosts:
    description: By host, what M(virtuoso.grid.host_check) returned there. Where it is left out hosts and controller are
      not judged.
    type: dict
  machine:
    description: The machine in question.
    type: dict
    suboptions:
      name:
        description: Its name.
        type: str
        required: true
      port:
        description: The port that it was tried on.
        type: int
        required: true
      orders:
        description: What M(virtuoso.grid.order_info) returned.
        type: dict
        required: true
      networks:
        description: The networks of the grid, each with C(name) and C(home).
        type: list
        elements: dict
        default: []
      looks:
        description: By host, what M(virtuoso.grid.machine_check) returned there. The controller is C(controller).
        type: dict
        required: true
      leases:
        description: By home, what M(virtuoso.grid.lease_info) returned there.
        type: dict
        default: {}
  ansible:
    description: Version of ansible-core.
    type: str
    default: ""
  state_dir:
    description: The directory on the controller where the collection keeps the authority and what hosts must know.
    type: path
  everything:
    description: Whether RV(rows) has a row for each check that is well.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
extends_documentation_fragment:
  - virtuoso.grid.attributes
  - virtuoso.grid.store
seealso:
  - module: virtuoso.grid.host_check
  - module: virtuoso.grid.machine_check
"""

EXAMPLES = r"""
- name: Judge
  virtuoso.grid.doctor:
    hosts:
      provider1: "{{ checked }}"
    store: ~/.local/share/virtuoso/grid.db
    state_dir: ~/.local/share/virtuoso
    ansible: "{{ ansible_version.full }}"
  delegate_to: localhost
  register: found
"""

RETURN = r"""
findings:
  description: Each with C(check), C(host), C(state), C(code), C(message) (what was seen) and C(remedy) (what to do).
  returned: success
  type: list
  elements: dict
  sample:
    - check: kvm
      host: provider1
      state: warning
      code: kvm_missing
      message: the processor shows no vmx or svm
      remedy: Enable VT-x or AMD-V in the firmware
title:
  description: How many of which kind, on a line.
  returned: success
  type: str
rows:
  description: The findings for M(virtuoso.grid.report), in its RV(columns), 120 characters wide at most.
  returned: success
  type: list
  elements: dict
columns:
  description: The columns of RV(rows).
  returned: success
  type: list
  elements: str
verdict:
  description: The errors, for people; empty where there are none.
  returned: success
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.virtuoso.grid.plugins.module_utils._argspec import STORE, merge
from ansible_collections.virtuoso.grid.plugins.module_utils._doctor import table
from ansible_collections.virtuoso.grid.plugins.module_utils._doctor.decide.all import judge
from ansible_collections.virtuoso.grid.plugins.module_utils._doctor.facts.controller import gather
from ansible_collections.virtuoso.grid.plugins.module_utils._run import CONTROLLER, Result, run_module

MACHINE = {
    "name": {"type": "str", "required": True},
    "port": {"type": "int", "required": True},
    "orders": {"type": "dict", "required": True},
    "networks": {"type": "list", "elements": "dict", "default": []},
    "looks": {"type": "dict", "required": True},
    "leases": {"type": "dict", "default": {}},
}
OPTIONS = {
    "argument_spec": {
        "hosts": {"type": "dict"},
        "machine": {"type": "dict", "options": MACHINE},
        "ansible": {"type": "str", "default": ""},
        "state_dir": {"type": "path"},
        "everything": {"type": "bool", "default": False},
    },
    "required_one_of": [("hosts", "machine")],
    "required_by": {"hosts": ["state_dir"]},
}


def work(module: AnsibleModule) -> Result:
    """The module's work."""
    params = module.params
    controller = None
    if params["hosts"] is not None:
        controller = gather(params["ansible"], params["store"], params["state_dir"])
    findings = judge(params["hosts"], controller, params["machine"])
    return {
        "changed": False,
        "findings": findings,
        "title": table.title(findings),
        "rows": table.rows(findings, everything=params["everything"]),
        "columns": list(table.COLUMNS),
        "verdict": table.verdict(findings),
    }


def main() -> None:
    """The module."""
    run_module(work, where=CONTROLLER, supports_check_mode=True, **merge(STORE, OPTIONS))


if __name__ == "__main__":
    main()
