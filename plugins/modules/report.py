#!/usr/bin/python
# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin of the same name, which does the work on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: report
short_description: Print what became of each machine, and fail where one could not be served
version_added: 0.1.0
description:
  - Joins the results that the steps of a play returned for the same machines, prints a table of them on the terminal,
    and fails when a machine failed in any step, with every machine's error.
  - Changes nothing. Runs on the controller.
author: virtuoso.grid contributors (@virtuoso-grid)
extends_documentation_fragment: [virtuoso.grid.attributes]
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
options:
  results:
    description:
      - One list of results for each step, in the order of the steps. The steps of a host may be given together, as a
        dictionary with such a list for each, by the step's name, as P(virtuoso.grid.step_rows#filter) returns it.
      - A result has C(name), and C(failed), C(msg) and C(failure) where that step failed.
    type: list
    elements: raw
    required: true
  columns:
    description:
      - What the table shows. C(reference) and C(screenshot) are shown with C(-v) only, and some others where the table
        would be wider than 120 columns without it; RV(machines) has all.
    type: list
    elements: str
    default: [name, reference, image, provider, state, address, console]
  title:
    description: A line before the table.
    type: str
  what:
    description: What the rows are, in the plural, for the message of a failure.
    type: str
    default: machines
    version_added: 0.2.0
  warnings:
    description: What else went wrong, and made no machine fail; shown as Ansible's warnings.
    type: list
    elements: str
    default: []
  side_steps:
    description:
      - Steps without which a machine runs all the same. Where one failed on a host of the play, that is a warning.
      - By the name of the variable in which the hosts registered the result of a task, what the task was to do.
    type: dict
    default: {}
    version_added: 0.2.0
"""

EXAMPLES = r"""
- name: Show what was ordered
  virtuoso.grid.report:
    results: ["{{ ordered.machines }}"]
    columns: [name, reference, state]

- name: Show what became of the machines of all providers
  virtuoso.grid.report:
    results: "{{ [ordered.machines] + ansible_play_hosts_all | map('extract', hostvars) | map(attribute='rows') }}"
    side_steps:
      announced: announce the machines on their networks
"""

RETURN = r"""
machines:
  description: One dictionary a machine with what the steps said of it; the last step's word counts.
  type: list
  elements: dict
  returned: always
table:
  description: The table's lines.
  type: list
  elements: str
  returned: always
failure:
  description: C(code) is C(some_failed); C(codes) lists the machines' own codes.
  type: dict
  returned: failure
"""
