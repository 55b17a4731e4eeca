#!/usr/bin/python
# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin of the same name, which does the work on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: machine_ready
short_description: Wait until machines can be logged in to
version_added: 0.2.0
author: virtuoso.grid contributors (@virtuoso-grid)
description:
  - Logs in to machines as a play would, by the user, the key and the way that the inventory has for them, all at once,
    until each is ready or the time is over.
  - Changes nothing. Runs on the controller.
options:
  machines:
    description:
      - Hosts of the inventory, each with C(name) and C(ready). With C(ssh) a machine is ready once a login has worked,
        with C(cloud_init) once cloud-init in it has ended well.
      - Where C(ordered) is false, a machine that refuses the login gets a note and doesn't fail. Somebody else may have
        the key.
    type: list
    elements: dict
    required: true
  timeout:
    description: Seconds to wait for all of them.
    type: float
    default: 300
extends_documentation_fragment: [virtuoso.grid.attributes]
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
"""

EXAMPLES = r"""
- name: Wait until two machines can be logged in to
  virtuoso.grid.machine_ready:
    machines:
      - {name: web1, ready: ssh, ordered: false}
      - {name: db1, ready: cloud_init, ordered: true}
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
machines:
  description: One row for each machine.
  returned: always
  type: list
  elements: dict
  contains:
    name: {description: Its name., type: str, returned: always}
    ready: {description: "V(ssh) or V(cloud_init), V(none) where it isn't ready.", type: str, returned: always}
    note: {description: What to know of a machine that refused the login., type: str, returned: when it did}
    failed: {description: Present and true where it isn't ready., type: bool, returned: failure}
    msg: {description: What is wrong., type: str, returned: failure}
    failure:
      description: "The error for programs; its C(code) is C(not_ready), C(login_refused), C(cloud_init_failed) or
        C(no_cloud_init)."
      type: dict
      returned: failure
"""
