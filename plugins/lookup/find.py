# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lookup plugin: find sets of resources."""

from __future__ import annotations

DOCUMENTATION = r"""
name: find
short_description: Find hosts, networks, images, and sets of them
version_added: 0.2.0
description:
  - Answers a question from the store of the information service, as the module M(virtuoso.grid.find) does, on the
    controller and without a task.
  - Terms are conditions on each object, as those in O(where).
author:
  - virtuoso.grid contributors (@virtuoso-grid)
extends_documentation_fragment:
  - virtuoso.grid.find
requirements:
  - SQLAlchemy >= 2.0
options:
  _terms:
    description: Further conditions.
    type: list
    elements: raw
  store:
    description:
      - The database of the information service, the path of an SQLite file or an SQLAlchemy URL.
      - By default the same as the roles', C(virtuoso/grid.db) in E(XDG_DATA_HOME), which is C(~/.local/share) where it
        isn't set.
    type: str
    env:
      - name: VIRTUOSO_STORE
    vars:
      - name: virtuoso_store
seealso:
  - module: virtuoso.grid.find
"""

EXAMPLES = r"""
- name: Physical machines that can instantiate a machine of 1 GiB
  ansible.builtin.debug:
    msg: >-
      {{ query('virtuoso.grid.find', 'memory_available >= 1 GiB', of='provider', include=['physical'])
         | map(attribute='name') }}

- name: Sets of four different machines on the same network with 512 MiB to 1 GiB in total
  ansible.builtin.debug:
    msg: >-
      {{ query('virtuoso.grid.find', of='machine', size=4, same=['network'],
               sum=['memory >= 512 MiB', 'memory <= 1 GiB'], within='1 s') }}
"""

RETURN = r"""
_raw:
  description: The answers, as RV(virtuoso.grid.find#module:found).
  type: list
  elements: dict
"""

import os
import typing as t

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible.utils.display import Display
from ansible_collections.virtuoso.grid.plugins.module_utils._argspec import FIND
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._information.find.answer import find
from ansible_collections.virtuoso.grid.plugins.module_utils._information.find.question import Options
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store.database import Store


class LookupModule(LookupBase):
    """Answers a question from the store."""

    def run(
        self, terms: list[object], variables: dict[str, object] | None = None, **kwargs: object
    ) -> list[dict[str, object]]:
        """The answers. It warns if the deadline passed before all were found."""
        self.set_options(var_options=variables, direct=kwargs)
        options = {name: self.get_option(name) for name in FIND["argument_spec"]}
        options["where"] = [*(options["where"] or []), *terms]
        default = os.path.join(os.environ.get("XDG_DATA_HOME") or "~/.local/share", "virtuoso", "grid.db")
        try:
            result = find(Store(self.get_option("store") or default), t.cast(Options, options))
        except GridError as exc:
            raise AnsibleLookupError(f"{exc} [{exc.code}]") from exc
        if result["answer"] == "cut":
            Display().warning(f"the lookup was cut by its deadline after {result['cost']['seconds']:.3f} s")
        return result["found"]
