# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Opening, making and protecting the store, on real SQLite files."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import stat
import threading

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store import (
    database,
    migrations,
    query,
    schema,
    writing,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store.database import Store, locate

MACHINE = {"name": "web1", "image": "tiny"}


def code_of(opened):
    """The code of the error that using the store raises."""
    with pytest.raises(GridError) as caught:
        with opened:
            pass
    return caught.value.code


def test_the_file_and_its_directory_are_for_the_owner_only(tmp_path):
    path = tmp_path / "a new directory, 100%" / "grid.db"
    before = os.umask(0)
    try:
        with Store(str(path)).writing():
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}


def test_a_store_keeps_what_was_written(grid):
    grid.order(MACHINE)
    assert grid.machine("web1")["owner"] == "alice"


def test_writers_use_the_write_ahead_log_and_foreign_keys(grid):
    with grid.store.writing() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1


def test_an_error_undoes_the_whole_transaction(grid):
    grid.order(MACHINE)
    with pytest.raises(RuntimeError), grid.store.writing() as connection:
        writing.ensure_sites(connection, ["north"])
        raise RuntimeError("killed")
    assert grid.counts()["site"] == 0


def test_a_reader_of_a_missing_store_makes_none(grid, tmp_path):
    assert code_of(grid.store.reading()) == "store_missing"
    with grid.store.reading(empty_if_missing=True) as connection:
        assert query.machines(connection) == []
    assert not list(tmp_path.iterdir())


def test_an_empty_file_is_an_empty_store(tmp_path):
    (tmp_path / "grid.db").touch()
    used = Store(str(tmp_path / "grid.db"))
    assert code_of(used.reading()) == "store_missing"
    with used.writing() as connection:
        assert migrations.version_of(connection) == migrations.VERSION


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ("/x/grid.db", "/x/grid.db"),
        ("grid.db", "/base/grid.db"),
        ("../grid.db", "/grid.db"),
        ("sqlite:////x/grid.db", "/x/grid.db"),
        ("sqlite:///grid.db", "/base/grid.db"),
        ("$VIRTUOSO_TEST/grid.db", "/from/environment/grid.db"),
    ],
)
def test_a_path_or_url_of_sqlite_is_a_file(given, path, monkeypatch):
    monkeypatch.setenv("VIRTUOSO_TEST", "/from/environment")
    assert locate(given, "/base").path == path


def test_other_urls_stay_urls():
    assert (
        str(locate("postgresql+psycopg://alice@db.example.org/grid"))
        == "postgresql+psycopg://alice@db.example.org/grid"
    )


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ("postgresql+psycopg://alice:secret@db/grid", "store_password_in_url"),
        ("postgresql+psycopg://alice@db/grid?password=secret", "store_password_in_url"),
        ("", "invalid_store"),
        (" ", "invalid_store"),
        ("sqlite://", "invalid_store"),
        ("sqlite:///:memory:", "invalid_store"),
        ("sqlite:///file:secret?mode=ro&uri=true", "invalid_store"),
        ("://secret", "invalid_store"),
    ],
)
def test_a_location_that_is_refused(given, code):
    with pytest.raises(GridError) as caught:
        locate(given)
    assert caught.value.code == code
    assert "secret" not in str(caught.value) or "file:" in given


def test_an_unknown_database_is_refused():
    assert code_of(Store("nosuch://host/grid").reading()) == "invalid_store"


def test_a_missing_driver_is_told_with_its_remedy():
    with pytest.raises(GridError) as caught, Store("mssql+nosuchdriver://host/grid").writing():
        pass
    assert caught.value.code in ("library_missing", "invalid_store")


def test_without_sqlalchemy_the_error_names_the_python(monkeypatch, tmp_path):
    monkeypatch.setattr(schema, "SQLALCHEMY_ERROR", ImportError("No module named sqlalchemy"))
    with pytest.raises(GridError) as caught:
        Store(str(tmp_path / "grid.db"))
    assert caught.value.code == "library_missing"
    assert "pip install" in str(caught.value) and caught.value.details["python"] in str(caught.value)


def test_a_missing_directory_above_is_an_error(tmp_path):
    assert code_of(Store(str(tmp_path / "a" / "b" / "grid.db")).writing()) == "store_directory_missing"
    assert not list(tmp_path.iterdir())


def test_a_directory_is_no_store(tmp_path):
    assert code_of(Store(str(tmp_path)).writing()) == "store_unopenable"


def test_a_newer_store_is_refused_and_left_alone(grid, tmp_path):
    grid.order(MACHINE)
    with grid.store.writing() as connection:
        connection.execute(schema.SCHEMA_VERSION_TABLE.update(), {"version": migrations.VERSION + 1})
    before = (tmp_path / "grid.db").read_bytes()
    assert code_of(grid.store.writing()) == "store_newer"
    assert code_of(grid.store.reading()) == "store_newer"
    assert (tmp_path / "grid.db").read_bytes() == before


def test_an_older_store_is_brought_up_by_a_writer_only(grid, monkeypatch):
    grid.order(MACHINE)

    def add_column(connection):
        connection.exec_driver_sql("ALTER TABLE site ADD COLUMN motto TEXT")

    monkeypatch.setattr(migrations, "MIGRATIONS", (*migrations.MIGRATIONS, add_column))
    monkeypatch.setattr(migrations, "VERSION", migrations.VERSION + 1)
    assert code_of(grid.store.reading()) == "store_older"
    with grid.store.writing() as connection:
        assert migrations.version_of(connection) == migrations.VERSION
        assert "motto" in connection.exec_driver_sql("SELECT sql FROM sqlite_master WHERE name = 'site'").scalar()
    assert grid.machine("web1")


def test_a_migration_that_fails_leaves_the_store_as_it_was(grid, monkeypatch):
    grid.order(MACHINE)

    def broken(connection):
        connection.exec_driver_sql("ALTER TABLE site ADD COLUMN motto TEXT")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(migrations, "MIGRATIONS", (*migrations.MIGRATIONS, broken))
        patch.setattr(migrations, "VERSION", migrations.VERSION + 1)
        assert code_of(grid.store.writing()) == "store_full"
    with grid.store.reading() as connection:
        assert "motto" not in connection.exec_driver_sql("SELECT sql FROM sqlite_master WHERE name = 'site'").scalar()


def test_another_programs_database_is_left_alone(tmp_path):
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE songs (name TEXT)")
    connection.close()
    before = path.read_bytes()
    assert code_of(Store(str(path)).writing()) == "store_foreign"
    assert code_of(Store(str(path)).reading()) == "store_foreign"
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"not a database" * 500, b"SQLite format 3\0" + b"\xff" * 8000])
def test_a_damaged_file_is_told_and_left_alone(tmp_path, content):
    path = tmp_path / "grid.db"
    path.write_bytes(content)
    assert code_of(Store(str(path)).writing()) == "store_corrupt"
    assert code_of(Store(str(path)).reading()) == "store_corrupt"
    assert path.read_bytes() == content


def test_damage_in_the_middle_is_told(grid, tmp_path):
    grid.order(*({"name": f"web{number}", "image": "tiny"} for number in range(200)))
    size = (tmp_path / "grid.db").stat().st_size
    with open(tmp_path / "grid.db", "r+b") as file:
        file.seek(8192)
        file.write(b"\xa5" * (size - 8192))
    with pytest.raises(GridError) as caught, grid.store.reading() as connection:
        query.machines(connection)
    assert caught.value.code == "store_corrupt"


def test_a_full_disk_is_told_and_undoes_the_transaction(grid):
    grid.order(MACHINE)
    with pytest.raises(GridError) as caught, grid.store.writing() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")  # SQLite reports this as it does a full disk
        writing.ensure_sites(connection, [f"site{number}" for number in range(10_000)])
    assert caught.value.code == "store_full"
    assert grid.counts()["site"] == 0
    assert grid.order(MACHINE)[0]["changed"] is False


def test_a_full_file_system_while_the_file_is_made_is_told(tmp_path, monkeypatch):
    def full(*dummy_args, **dummy_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(database.sqlite3, "connect", full)
    assert code_of(Store(str(tmp_path / "grid.db")).writing()) == "store_full"


def test_writing_through_a_reader_is_refused(grid):
    grid.order(MACHINE)
    with pytest.raises(GridError) as caught, grid.store.reading() as connection:
        writing.ensure_sites(connection, ["north"])
    assert caught.value.code == "store_read_only"


def test_a_lock_that_is_never_released_is_told(grid, tmp_path):
    grid.order(MACHINE)
    other = sqlite3.connect(tmp_path / "grid.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        assert code_of(Store(str(tmp_path / "grid.db"), timeout=0.1).writing()) == "store_busy"
        with grid.store.reading() as connection:  # readers aren't kept waiting
            assert query.machines(connection)
    finally:
        other.close()


def _write_many(path, start, results):
    used = Store(path)
    for number in range(20):
        with used.writing() as connection:
            writing.ensure_sites(connection, [f"site-{start}-{number}"])
            row = connection.exec_driver_sql("SELECT version FROM schema_version").all()
    results.put((start, len(row)))


def test_processes_that_make_and_write_the_store_at_once_lose_nothing(tmp_path):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    path = str(tmp_path / "state" / "grid.db")
    writers = [context.Process(target=_write_many, args=(path, start, results)) for start in range(6)]
    for writer in writers:
        writer.start()
    assert sorted(results.get(timeout=60) for dummy in writers) == [(start, 1) for start in range(6)]
    for writer in writers:
        writer.join()
    with Store(path).reading() as connection:
        assert len(query.sites(connection)) == 120


def _begin_and_hang(path, begun):
    with Store(path).writing() as connection:
        writing.ensure_sites(connection, ["half-written"])
        begun.set()
        threading.Event().wait()


def test_a_killed_writer_leaves_no_trace_and_no_lock(grid, tmp_path):
    grid.order(MACHINE)
    context = multiprocessing.get_context("fork")
    begun = context.Event()
    writer = context.Process(target=_begin_and_hang, args=(str(tmp_path / "grid.db"), begun))
    writer.start()
    assert begun.wait(30)
    writer.kill()
    writer.join()
    assert grid.order({"name": "web2", "image": "tiny"})[0]["changed"]
    assert grid.counts()["site"] == 0 and grid.machine("web1")
