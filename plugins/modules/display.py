#!/usr/bin/python
# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module: addresses and screenshots of machines' displays."""

from __future__ import annotations

DOCUMENTATION = r"""
module: display
short_description: Addresses and screenshots of machines' displays
version_added: 0.1.0
author: virtuoso.grid contributors (@virtuoso-grid)
description:
  - Returns host and port of the displays of machines on a provider. The host is the provider's own loopback; reach it
    with C(ssh -L).
  - With O(dest), takes a screenshot of each machine that runs and writes it to the controller. This only reads, so it
    never counts as a change.
options:
  machines:
    description: The machines, each by C(uuid) or C(name); other keys are ignored.
    type: list
    elements: dict
    required: true
  dest:
    description:
      - Directory on the controller for screenshots, made if it isn't there. Files are named by uuid and readable by
        their owner only.
      - In check mode nothing is written.
    type: str
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
extends_documentation_fragment:
  - virtuoso.grid.attributes
  - virtuoso.grid.hypervisor
seealso:
  - module: virtuoso.grid.machine
"""

EXAMPLES = r"""
- name: Take screenshots of two machines
  virtuoso.grid.display:
    machines:
      - name: web1
      - uuid: 5f0d5b1e-6c1c-4f3a-9c0f-2d6a1f0e8b11
    dest: "{{ playbook_dir }}/screenshots"
"""

RETURN = r"""
machines:
  description: One result per entry, in their order.
  returned: always
  type: list
  elements: dict
  contains:
    name: {description: Name., type: str, returned: always}
    uuid: {description: Uuid., type: str, returned: always}
    changed: {description: Always false., type: bool, returned: always}
    display:
      description: Kind, host and port; the port is V(none) while the machine doesn't run.
      type: dict
      returned: success
      sample: {type: vnc, host: 127.0.0.1, port: 5900}
    screenshot:
      description: "C(path) on the controller, C(format), which is V(png), C(width) and C(height); V(none) without
        O(dest), or while nothing is shown."
      type: dict
      returned: success
    failed: {description: Present and true where this machine failed., type: bool, returned: failure}
    msg: {description: What is wrong and what to do., type: str, returned: failure}
    failure:
      description:
        - The error for programs. Its C(code) is among C(machine_unknown), C(foreign_domain), C(invalid_...),
          C(screenshot_invalid), C(libvirt_error), C(libvirt_unreachable), C(io_error), C(disk_full).
      type: dict
      returned: failure
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.virtuoso.grid.plugins.module_utils._argspec import HYPERVISOR, merge
from ansible_collections.virtuoso.grid.plugins.module_utils._display.console import displays
from ansible_collections.virtuoso.grid.plugins.module_utils._run import Result, run_module

OPTIONS = {
    "argument_spec": {
        "machines": {"type": "list", "elements": "dict", "required": True},
        # The action plugin writes there; here it only says that screenshots are wanted.
        "dest": {"type": "str"},
    }
}


def work(module: AnsibleModule) -> Result:
    """The module's work; the action plugin of the same name writes the pictures to files."""
    params = module.params
    pictures = bool(params["dest"]) and not module.check_mode
    return {"changed": False, "machines": displays(params["uri"], params["machines"], pictures)}


def main() -> None:
    """The module."""
    run_module(work, supports_check_mode=True, **merge(HYPERVISOR, OPTIONS))


if __name__ == "__main__":
    main()
