# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lookup plugin: how hosts are reached."""

from __future__ import annotations

DOCUMENTATION = r"""
name: way
short_description: How hosts are reached, by the controller and by each other
version_added: 0.2.0
description:
  - Returns how hosts of the inventory are reached, as Ansible's connection plugin P(ansible.builtin.ssh#connection)
    has it, with all that C(ansible.cfg), the environment and variables say, and as C(ssh -G) has the rest.
  - A variable of a play or a role counts where it is one of the host's.
author:
  - virtuoso.grid contributors (@virtuoso-grid)
options:
  _terms:
    description: Names of hosts of the inventory.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: The addresses by which hosts of the grid reach each other
  ansible.builtin.debug:
    msg: "{{ query('virtuoso.grid.way', *groups['providers']) | map(attribute='address') }}"
"""

RETURN = r"""
_raw:
  description:
    - For each host its C(name), C(site) and C(depot), and the C(connection), C(ssh), C(local) or another.
    - What the controller gives to ssh is C(host), C(port) (V(0) where ssh has it itself), C(user), C(identity_file) and
      C(ssh_args), in which files are absolute. C(password) tells whether it logs in with one.
    - Other hosts reach it by C(address), which is C(virtuoso_address) or else what ssh has for its name, with
      C(ssh_port).
  type: list
  elements: dict
"""

import typing as t

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._play.hosts import Way
from ansible_collections.virtuoso.grid.plugins.plugin_utils._way import way_to


class LookupModule(LookupBase):
    """Finds out how hosts are reached."""

    def run(self, terms: list[str], variables: dict[str, t.Any] | None = None, **kwargs: object) -> list[Way]:
        """The ways to the hosts."""
        self.set_options(var_options=variables, direct=kwargs)
        hostvars = (variables or {}).get("hostvars") or {}
        found = []
        for name in terms:
            if name not in hostvars:
                raise AnsibleLookupError(f"{name} is no host of the inventory [unknown_host]")
            try:
                found.append(way_to(hostvars[name]))
            except GridError as exc:
                raise AnsibleLookupError(f"{exc} [{exc.code}]") from exc
        return found
