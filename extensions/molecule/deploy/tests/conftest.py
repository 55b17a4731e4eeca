# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of deployed machines share: the machines as the store has them, read without the collection's own
code."""

from __future__ import annotations

import json
import sqlite3
from xml.etree import ElementTree

import pytest

NAMES = ("mol-web1", "mol-web2")
DEPOT = "/var/lib/virtuoso"
VIRSH = "virsh --connect qemu:///system"


@pytest.fixture
def rows(build):
    """The rows of a query on the store."""

    def ask(query: str, *values: str) -> list[dict]:
        store = sqlite3.connect(build / "grid.db")
        store.row_factory = sqlite3.Row
        try:
            return [dict(row) for row in store.execute(query, values)]
        finally:
            store.close()

    return ask


@pytest.fixture
def machines(rows):
    """Machines by name: uuid, state, address, provider."""
    query = """SELECT host.name, host.uuid, host.state, host.address, provider.name AS provider
               FROM host JOIN orders USING (uuid)
               JOIN virtualization ON virtualization.virtual = host.uuid AND virtualization.role = 'provider'
               JOIN host AS provider ON provider.uuid = virtualization.constituent"""
    return {row["name"]: row for row in rows(query)}


@pytest.fixture
def machine(host, machines):
    """The one machine of the tested provider."""
    (found,) = (one for one in machines.values() if one["provider"] == host.backend.get_hostname())
    return found


@pytest.fixture
def domain(host, machine):
    """Its definition in libvirt."""
    return ElementTree.fromstring(host.check_output(f"{VIRSH} dumpxml {machine['uuid']}"))


@pytest.fixture
def disk(host, machine):
    """The directory of its disk on the provider."""
    return f"{DEPOT}/machines/{machine['uuid']}"


@pytest.fixture
def inventory(ansible):
    """Ansible's view of everything."""
    return json.loads(ansible("ansible-inventory", "--list"))
