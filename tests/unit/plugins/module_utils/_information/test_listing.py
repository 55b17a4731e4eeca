# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventory's quick way to the store: the same rows as the other way, or none."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store import listing, migrations, query
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store.database import Store
from synthetic import Grid as Synthetic

COLLECTIONS = Path(__file__).resolve().parents[5] / "build" / "collections"


def the_other_way(path):
    """What SQLAlchemy reads."""
    with Store(str(path)).reading() as connection:
        return query.machines(connection), query.hosts(connection)


@pytest.fixture
def path(grid, tmp_path):
    """A store with a running machine, futures with and without a place, and a provider."""
    grid.running("web1")
    grid.order({"name": "web2", "image": "tiny"}, {"name": "web3", "image": "debian-12", "tags": ["a"]})
    grid.hold("web3", "provider1")
    return tmp_path / "grid.db"


def test_the_rows_are_those_of_the_queries(path):
    machines, hosts = listing.read(str(path))
    assert (machines, hosts) == the_other_way(path)
    assert [(row["name"], row["future"], row["provider"], row["site"]) for row in machines] == [
        ("web1", False, "provider1", "north"),
        ("web2", True, None, None),
        ("web3", True, "provider1", None),
    ]
    assert [row["name"] for row in hosts] == ["provider1"]


def test_the_rows_of_a_larger_grid_too(tmp_path):
    Synthetic(300, seed=7).write(str(tmp_path / "grid.db"))
    read = listing.read(str(tmp_path / "grid.db"))
    assert read == the_other_way(tmp_path / "grid.db") and len(read[0]) == 300


def test_it_is_of_the_version_that_is_written():
    assert listing.VERSION == migrations.VERSION


@pytest.mark.parametrize("harm", ["missing", "empty", "other_program", "newer", "damaged", "directory"])
def test_what_is_not_a_whole_store_of_this_version_is_left_to_the_other_way(path, harm):
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
        if harm == "newer":
            connection.execute("UPDATE schema_version SET version = version + 1")
    connection.close()
    if harm != "newer":
        path.unlink()
    if harm == "empty":
        path.touch()
    if harm == "damaged":
        path.write_bytes(b"SQLite format 3\0" + os.urandom(8192))
    if harm == "directory":
        path.mkdir()
    if harm == "other_program":
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE mine (a)")
    assert listing.read(str(path)) is None


def test_reading_changes_nothing_and_waits_for_no_writer(path):
    before = path.read_bytes()
    with Store(str(path)).writing() as connection:
        connection.exec_driver_sql("DELETE FROM orders")
        machines, dummy = listing.read(str(path))
        assert machines[0]["owner"] == "alice"
        connection.rollback()
    assert path.read_bytes() == before


def test_the_inventory_loads_no_database_library(path, tmp_path):
    """An inventory is read at the start of each play: what loading SQLAlchemy costs is most of what the plugin would
    take."""
    (tmp_path / "grid.yml").write_text("plugin: virtuoso.grid.grid\nstore: grid.db\n", encoding="utf-8")
    program = "import sys; from ansible.cli.inventory import main; main(sys.argv)"
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", program, "-i", str(tmp_path / "grid.yml"), "--list"],
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and "web1" in done.stdout, done.stderr[-2000:]
    assert "module_utils._information.store.listing" in done.stderr and "sqlalchemy" not in done.stderr
