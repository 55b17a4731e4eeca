#!/usr/bin/python
# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module: list ordered machines, with what the store knows of them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: order_info
short_description: List ordered machines
version_added: 0.1.0
description:
  - Reads machines from the store of the information service, futures as well as machines that exist.
  - Names and uuids that the store doesn't know are left out of the result; with O(select) they are an error.
extends_documentation_fragment:
  - virtuoso.grid.attributes
  - virtuoso.grid.store
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
options:
  names:
    description: Names of machines; all machines if neither this nor O(uuids) is given.
    type: list
    elements: str
  uuids:
    description: The uuids of machines, or their references (C(urn:uuid:...)).
    type: list
    elements: str
  select:
    description:
      - Which machines a play is about. V(all), or names as a list or separated by commas. Empty if O(limit) alone
        chooses them.
      - A name that nobody ordered is an error, with C(failure.code) V(machine_unknown). If neither this nor O(limit)
        names any, the error is V(nothing_chosen).
      - Excludes O(names) and O(uuids).
    type: raw
    version_added: 0.2.0
  limit:
    description:
      - Names of hosts. Only machines that are among them, or whose provider is, are listed. Give
        C(ansible_play_hosts_all) in a play that was limited.
      - Excludes O(names) and O(uuids).
    type: list
    elements: str
    version_added: 0.2.0
author:
  - virtuoso.grid contributors (@virtuoso-grid)
seealso:
  - module: virtuoso.grid.order
"""

EXAMPLES = r"""
- name: All machines
  virtuoso.grid.order_info:
    store: ~/.local/share/virtuoso/grid.db
  delegate_to: localhost
  run_once: true
  register: orders

- name: The machines that a play is about
  virtuoso.grid.order_info:
    store: ~/.local/share/virtuoso/grid.db
    select: "{{ machines | default('') }}"
    limit: "{{ ansible_play_hosts_all if ansible_limit is defined else omit }}"
  delegate_to: localhost
  run_once: true
  register: chosen

- name: Where web1 is
  ansible.builtin.debug:
    msg: "{{ (orders.machines | selectattr('name', 'equalto', 'web1') | first).provider }}"
"""

RETURN = r"""
machines:
  description: Machines by name.
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
    reference:
      description: Its reference.
      type: str
      returned: always
    owner:
      description: Who ordered it.
      type: str
      returned: always
    state:
      description: V(future), V(placed), or the state that was last seen (V(running), V(stopped), V(paused),
        V(hibernated), V(absent)).
      type: str
      returned: always
    spec:
      description: The order in canonical form, sizes in bytes.
      type: dict
      returned: always
    provider:
      description: The provider that it is on, or that holds room for it, or V(null).
      type: str
      returned: always
    site:
      description: The provider's site, or V(null).
      type: str
      returned: always
    generation:
      description: The number of times that the machine was moved.
      type: int
      returned: always
    image:
      description: C(name) and C(digest) of the image that an existing machine is made from, else V(null).
      type: dict
      returned: always
    address:
      description: The address that it is reached at, which something has seen; V(null) as long as nothing has.
      type: str
      returned: always
    addresses:
      description: All its addresses that were last seen.
      type: list
      elements: str
      returned: always
    ordered_address:
      description: The address that it was ordered with, or V(null). It may be one that nothing has seen.
      type: str
      returned: always
    mac:
      description: Its hardware address, or V(null).
      type: str
      returned: always
    display:
      description: C(type), C(host) and C(port) of its console on the provider, or V(null).
      type: dict
      returned: always
    restart_required:
      description: Whether a change waits for its next start.
      type: bool
      returned: always
    seen:
      description: When it was last seen, ISO 8601 in UTC, or V(null).
      type: str
      returned: always
    created:
      description: When it was ordered.
      type: str
      returned: always
    updated:
      description: When its order was last changed.
      type: str
      returned: always
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.virtuoso.grid.plugins.module_utils._argspec import STORE, merge
from ansible_collections.virtuoso.grid.plugins.module_utils._information.inventory import choosing, views
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store import listing
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store.records import MachineRow
from ansible_collections.virtuoso.grid.plugins.module_utils._run import CONTROLLER, Result, run_module

ARGUMENTS = {
    "argument_spec": {
        "names": {"type": "list", "elements": "str"},
        "uuids": {"type": "list", "elements": "str"},
        "select": {"type": "raw"},
        "limit": {"type": "list", "elements": "str"},
    },
    "mutually_exclusive": [("names", "uuids", "select"), ("names", "uuids", "limit")],
    "supports_check_mode": True,
}


def work(module: AnsibleModule) -> Result:
    """Read the machines."""
    store, names, uuids = (module.params[name] for name in ("store", "names", "uuids"))
    path = listing.file_of(store, os.getcwd()) if names is None and uuids is None else None
    listed = listing.read(path) if path else None
    rows = listed[0] if listed else _queried(store, names, uuids)
    machines = [views.machine_view(row) for row in rows]
    return {
        "changed": False,
        "machines": choosing.of_store(store, machines, module.params["select"], module.params["limit"]),
    }


def _queried(store: str, names: list[str] | None, uuids: list[str] | None) -> list[MachineRow]:
    """The rows, read with SQLAlchemy. It is imported here because loading it takes longer than reading a file without
    it."""
    from ansible_collections.virtuoso.grid.plugins.module_utils._information.store import query
    from ansible_collections.virtuoso.grid.plugins.module_utils._information.store.database import Store

    wanted = None if uuids is None else [uuid.lower().removeprefix("urn:uuid:") for uuid in uuids]
    with Store(store).reading(empty_if_missing=True) as connection:
        return query.machines(connection, names=names, uuids=wanted)


def main() -> None:
    """Run the module."""
    run_module(work, where=CONTROLLER, **merge(STORE, ARGUMENTS))


if __name__ == "__main__":
    main()
