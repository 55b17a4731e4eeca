# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many plays at once, and failures below the store: full and read-only file systems, a server that goes away."""

from __future__ import annotations

import os
import sqlite3
import subprocess

import pytest
import sqlalchemy as sa
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._information.find import answer
from ansible_collections.virtuoso.grid.plugins.module_utils._information.find.bounded import Bounded
from ansible_collections.virtuoso.grid.plugins.module_utils._information.registration import orders
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store import migrations, query, schema, writing
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store.database import Store
from plays import at_once


def test_fifty_plays_at_once_lose_nothing_and_overcommit_nothing(location):
    outcome = at_once(location, plays=50, room=10)
    assert outcome == {"errors": [], "orders_lost": 0, "hosts_lost": 0, "samples_lost": 0, "placed": 10, "sound": True}


def as_root(*argv):
    subprocess.run([*(["sudo", "-n"] if os.geteuid() else []), *argv], check=True, capture_output=True)


@pytest.fixture
def small(tmp_path):
    """A file system of one megabyte."""
    path = tmp_path / "small"
    path.mkdir()
    as_root("mount", "-t", "tmpfs", "-o", f"size=1m,mode=0700,uid={os.geteuid()}", "tmpfs", str(path))
    yield path
    as_root("umount", str(path))


def order_many(location, start, count):
    entries = [{"name": f"web{number}", "image": "tiny"} for number in range(start, start + count)]
    with Store(location).writing() as connection:
        return orders.serve(connection, entries, owner="alice", images=None, absent=False, check=False)[0]


def sound(path):
    """The names of the machines in a store whose file is sound."""
    connection = sqlite3.connect(path)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return {name for (name,) in connection.execute("SELECT name FROM host")}
    finally:
        connection.close()


def test_a_full_disk_leaves_the_store_as_it_was(small):
    location = str(small / "grid.db")
    order_many(location, 0, 5)
    before = sound(location)
    with pytest.raises(GridError) as caught:
        order_many(location, 5, 5000)
    assert caught.value.code in ("store_full", "store_input_output") and caught.value.remedy
    assert sound(location) == before
    order_many(location, 5, 1)
    assert sound(location) == before | {"web5"}


def test_a_disk_that_is_full_before_the_store_is_made(small):
    (small / "ballast").write_bytes(b"\0" * (1 << 20))
    with pytest.raises(GridError) as caught:
        order_many(str(small / "grid.db"), 0, 1)
    assert caught.value.code in ("store_full", "store_input_output")
    (small / "ballast").unlink()
    order_many(str(small / "grid.db"), 0, 1)
    assert sound(small / "grid.db") == {"web0"}


def test_a_read_only_disk(small):
    location = str(small / "grid.db")
    order_many(location, 0, 5)
    as_root("mount", "-o", "remount,ro", str(small))
    with pytest.raises(GridError) as caught:
        order_many(location, 5, 1)
    assert caught.value.code == "store_read_only"
    with Store(location).reading() as connection:
        assert len(query.machines(connection)) == 5
    assert len(answer.find(Store(location), {"of": "machine", "include": ["future"]})["found"]) == 5
    as_root("mount", "-o", "remount,rw", str(small))
    order_many(location, 5, 1)
    assert len(sound(location)) == 6


def test_a_server_that_goes_away_while_it_is_written_to(postgresql):
    location = postgresql.database()
    order_many(location, 0, 3)
    try:
        with pytest.raises(GridError) as caught, Store(location).writing() as connection:
            writing.ensure_sites(connection, ["half-written"])
            postgresql.stop()
            writing.ensure_sites(connection, ["more"])
        assert caught.value.code == "store_unreachable" and caught.value.remedy
        with pytest.raises(GridError) as caught:
            order_many(location, 3, 1)
        assert caught.value.code == "store_unreachable"
    finally:
        postgresql.start()
    with Store(location).reading() as connection:
        assert query.sites(connection) == {} and len(query.machines(connection)) == 3
    order_many(location, 3, 1)


@pytest.mark.parametrize(
    "options", [{"of": "machine"}, {"sql": "SELECT * FROM host"}, {"size": 2, "same": ["site"], "within": "10 s"}]
)
def test_a_server_that_goes_away_while_it_is_read(postgresql, options, monkeypatch):
    location = postgresql.database()
    order_many(location, 0, 3)
    store = Store(location)

    def stop_when_connected(*arguments):
        # The first thing that is done with the open connection
        postgresql.stop()
        return Bounded(*arguments)

    monkeypatch.setattr(answer, "Bounded", stop_when_connected)
    real = answer.read_sql.query
    monkeypatch.setattr(answer.read_sql, "query", lambda *arguments: (postgresql.stop(), real(*arguments))[1])
    try:
        with pytest.raises(GridError) as caught:
            answer.find(store, options)
        assert caught.value.code == "store_unreachable"
    finally:
        postgresql.start()
    with Store(location).reading() as connection:
        assert len(query.machines(connection)) == 3


def test_a_lock_of_a_server_that_is_never_released_is_told(postgresql):
    location = postgresql.database()
    order_many(location, 0, 1)
    with Store(location).writing():
        with pytest.raises(GridError) as caught, Store(location, timeout=0.1).writing():
            pass
        assert caught.value.code == "store_busy"
        with Store(location).reading() as connection:  # readers aren't kept waiting
            assert query.machines(connection)


def test_nobody_answers_at_the_url(tmp_path):
    with pytest.raises(GridError) as caught:
        answer.find(Store(f"postgresql+psycopg://grid@/grid?host={tmp_path}"), {})
    assert caught.value.code == "store_unreachable"


def test_a_server_refuses_what_a_reader_writes(postgresql):
    location = postgresql.database()
    order_many(location, 0, 1)
    with pytest.raises(GridError) as caught, Store(location).reading() as connection:
        writing.ensure_sites(connection, ["north"])
    assert caught.value.code == "store_read_only"


def test_a_newer_store_on_a_server_is_refused_and_left_alone(location):
    order_many(location, 0, 1)
    with Store(location).writing() as connection:
        connection.execute(schema.SCHEMA_VERSION_TABLE.update(), {"version": migrations.VERSION + 1})
    for use in (lambda: order_many(location, 1, 1), lambda: answer.find(Store(location), {})):
        with pytest.raises(GridError) as caught:
            use()
        assert caught.value.code == "store_newer"


def test_another_programs_database_on_a_server_is_left_alone(postgresql):
    location = postgresql.database()
    engine = sa.create_engine(location, poolclass=sa.pool.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE songs (name TEXT)")
    with pytest.raises(GridError) as caught:
        order_many(location, 0, 1)
    assert caught.value.code == "store_foreign"
    with engine.begin() as connection:
        assert sa.inspect(connection).get_table_names() == ["songs"]
