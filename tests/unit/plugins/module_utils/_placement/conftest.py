# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plays on a store: what they order, place and register."""

from __future__ import annotations

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._information.registration import orders
from ansible_collections.virtuoso.grid.plugins.module_utils._information.registration.changes import Registration
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store import query
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store.database import Store
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.holding import place, propose
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.inputs import Request, read_provider
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.model import Rules
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.quotas import serve as set_quotas
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.stored import reservations

GIB = 2**30
IMAGE = {"name": "tiny@1", "digest": "sha256:" + "a" * 64, "size": GIB, "virtual_size": 2 * GIB}
FREE = {
    "site": "north",
    "cpus": 100,
    "cpus_allocated": 0,
    "memory": 16 * GIB,
    "memory_free": 16 * GIB,
    "memory_allocated": 0,
    "disk": 1000 * GIB,
    "disk_free": 1000 * GIB,
    "disk_allocated": 0,
    "networks": ["virtuoso"],
    "machines": [],
    "images": [],
    "load": 0.5,
}
RULES = Rules(host_reserve=0)


class Plays:
    """What plays do to a store: order, place, register."""

    def __init__(self, path):
        self.store = Store(str(path))

    def order(self, *names, **fields):
        with self.store.writing() as connection:
            results = orders.serve(
                connection, [{"name": name, "image": "tiny", "memory": "1 GiB", **fields} for name in names], **ORDERING
            )[0]
        return [{**result["spec"], "uuid": result["uuid"], "image": IMAGE} for result in results]

    def request(self, machines, *providers, **options):
        given = [read_provider({"name": f"p{number}", **FREE, **fields}) for number, fields in enumerate(providers, 1)]
        return Request(machines, given, RULES, **options)

    def place(self, machines, *providers, check=False, proposal=None, **options):
        request = self.request(machines, *providers, **options)
        with self.store.reading(empty_if_missing=True) if check else self.store.writing() as connection:
            results, self.diffs = place(connection, request, check=check, proposal=proposal)
        return results

    def propose(self, machines, *providers, **options):
        with self.store.reading() as connection:
            return propose(connection, self.request(machines, *providers, **options), check=False)[0]

    def reservations(self):
        with self.store.reading() as connection:
            return {row["machine"] or row["owner"]: row for row in reservations(connection, "0001")}

    def quotas(self, *quotas):
        with self.store.writing() as connection:
            assert not [
                result
                for result in set_quotas(connection, quotas, absent=False, check=False)[0]
                if result.get("failed")
            ]

    def appear(self, machine, provider):
        """The machine is defined on the provider."""
        told = {
            "name": machine["name"],
            "uuid": machine["uuid"],
            "provider": provider,
            "state": "running",
            "vcpus": 1,
            "memory": GIB,
            "disk": 2 * GIB,
        }
        with self.store.writing() as connection:
            registration = Registration(connection)
            results = registration.see_machines([told])
            registration.write()
        assert not results[0].get("failed")

    def row(self, name):
        with self.store.reading() as connection:
            return query.machines(connection, names=[name])[0]


ORDERING = {"owner": "alice", "images": None, "absent": False, "check": False}


@pytest.fixture
def make_plays():
    """Makes plays on the store at a path."""
    return Plays


@pytest.fixture
def plays(tmp_path):
    return Plays(tmp_path / "grid.db")
