# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A store with what a play would have written to it."""

from __future__ import annotations

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._information.registration import orders
from ansible_collections.virtuoso.grid.plugins.module_utils._information.registration.changes import Registration
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store import query, schema, writing
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store.database import Store
from postgresql import Server

GIB = 2**30
DIGEST = "sha256:" + "a" * 64
FACTS = {
    "architecture": "x86_64",
    "cpus": 4,
    "memory": 16 * GIB,
    "disk": 100 * GIB,
    "memory_free": 15 * GIB,
    "load": 0.1,
    "machines": [],
    "images": [{"digest": DIGEST, "names": ["tiny@1"]}],
}


class Grid:
    """The information service as the modules use it, without Ansible."""

    def __init__(self, path):
        self.store = Store(str(path))

    def order(self, *entries, owner="alice", images=("tiny", "debian-12"), absent=False, check=False, inventory=()):
        """Results of the module order, and its diffs as ``self.diffs``."""
        with self.store.reading(empty_if_missing=True) if check else self.store.writing() as connection:
            results, self.diffs = orders.serve(
                connection, entries, owner=owner, images=images, absent=absent, check=check, inventory=inventory
            )
        return results

    def register(self, providers=(), machines=(), gone=(), complete=(), samples=(), check=False, inventory=()):
        """Results of the module registration."""
        with self.store.reading(empty_if_missing=True) if check else self.store.writing() as connection:
            registration = Registration(connection, inventory)
            results = {
                "providers": registration.see_hosts(providers),
                "machines": registration.see_machines(machines),
                **registration.see_all(complete, machines),
                "samples": registration.see_samples(samples),
                "gone": registration.forget(gone),
            }
            self.diffs = registration.diffs()
            if not check:
                registration.write()
        return results

    def provider(self, name="provider1", site="north", **fields):
        """Register one provider."""
        return self.register(
            [{"name": name, "site": site, "address": "198.18.0.21", "user": "root", "facts": FACTS, **fields}]
        )["providers"][0]

    def running(self, name="web1", provider="provider1", **fields):
        """Order a machine, register its provider, and have it seen running there; returns its uuid."""
        uuid = self.order({"name": name, "image": "tiny"})[0]["uuid"]
        self.provider(provider)
        self.register(machines=[seen(name, uuid, provider, **fields)])
        return uuid

    def machine(self, name):
        """What the store has of a machine, or None."""
        with self.store.reading() as connection:
            rows = query.machines(connection, names=[name])
        return rows[0] if rows else None

    def counts(self):
        """Rows of each table."""
        with self.store.reading() as connection:
            return {
                table.name: len(connection.execute(table.select()).all()) for table in schema.METADATA.sorted_tables
            }

    def hold(self, name, provider):
        """Hold a future machine on a provider."""
        with self.store.writing() as connection:
            uuid = query.machines(connection, names=[name])[0]["uuid"]
            writing.set_constituent(connection, uuid, "provider", query.hosts(connection, names=[provider])[0]["uuid"])


def seen(name, uuid, provider="provider1", **fields):
    """A machine as machine_info returns it."""
    return {
        "name": name,
        "uuid": uuid,
        "provider": provider,
        "owner": "alice",
        "state": "running",
        "image": {"name": "tiny@1", "digest": DIGEST},
        "vcpus": 1,
        "memory": 512 * 2**20,
        "disk": GIB,
        "mac": "52:54:00:00:00:01",
        "network": "virtuoso",
        "addresses": ["198.18.1.5", "fe80::1"],
        "display": {"type": "vnc", "host": "127.0.0.1", "port": 5900},
        "generation": 1,
        "goal": "balance",
        "tags": [],
        "start": "whole",
        "user": "root",
        "python": "/usr/bin/python3",
        **fields,
    }


@pytest.fixture
def grid(tmp_path):
    """An empty information service."""
    return Grid(tmp_path / "grid.db")


@pytest.fixture(name="seen")
def seen_fixture():
    """Makes what machine_info returns."""
    return seen


@pytest.fixture
def facts():
    """What provider_info returns."""
    return dict(FACTS)


@pytest.fixture(scope="session")
def postgresql():
    """A PostgreSQL server of the tests' own."""
    with Server() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def location(request, tmp_path):
    """Where an empty store can be made, on each database."""
    if request.param == "sqlite":
        return str(tmp_path / "grid.db")
    return request.getfixturevalue("postgresql").database()


@pytest.fixture
def other_location(location, request, tmp_path):
    """Another such place on the same database."""
    return request.getfixturevalue("postgresql").database() if "://" in location else str(tmp_path / "other.db")
