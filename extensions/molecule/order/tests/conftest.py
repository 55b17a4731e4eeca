# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of orders share: the store, read without the collection's own code."""

from __future__ import annotations

import json
import sqlite3

import pytest


@pytest.fixture
def rows(build):
    """The rows of a query on the store."""

    def ask(query: str, *values: str) -> list[dict]:
        store = sqlite3.connect(f"file:{build / 'state' / 'grid.db'}?mode=ro", uri=True)
        store.row_factory = sqlite3.Row
        try:
            return [dict(row) for row in store.execute(query, values)]
        finally:
            store.close()

    return ask


@pytest.fixture
def orders(rows):
    """Each ordered machine's uuid, owner and specification, by name."""
    found = rows(
        "SELECT host.name, host.uuid, host.state, orders.owner, orders.spec, orders.generation FROM orders JOIN "
        "host USING (uuid)"
    )
    return {row["name"]: dict(row, spec=json.loads(row["spec"])) for row in found}


@pytest.fixture
def told(ansible, build):
    """What order_info says of each machine, by name."""
    out = ansible(
        "ansible",
        "localhost",
        "-m",
        "virtuoso.grid.order_info",
        "-a",
        f"store={build / 'state' / 'grid.db'}",
        "--one-line",
    )
    return {machine["name"]: machine for machine in json.loads(out.partition(" => ")[2])["machines"]}
