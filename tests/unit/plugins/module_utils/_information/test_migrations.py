# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Migrating a store of release 0.1.0 to the newest version, on both databases; the steps lead to the schema."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._information.inventory import views
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store import migrations, query, schema
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store.database import Store

VERSION_1 = Path(__file__).with_name("version_1.sql").read_text(encoding="utf-8")
GIB = 2**30


def make_version_1(location):
    """The old store: the dump itself as SQLite reads it; on PostgreSQL the frozen tables with the dump's rows."""
    if "://" not in location:
        connection = sqlite3.connect(location)
        connection.executescript(VERSION_1)
        connection.close()
        return
    engine = sa.create_engine(location, poolclass=sa.pool.NullPool)
    rows = dict.fromkeys(re.findall(r'^INSERT INTO "(\w+)".*;$', VERSION_1, re.MULTILINE))
    order = [
        "object",
        "site",
        "host",
        *(table for table in rows if table not in ("object", "site", "host", "image_layer")),
        "image_layer",
    ]
    with engine.begin() as connection:
        migrations.MIGRATIONS[0](connection)
        for table in order:
            for statement in re.findall(rf'^INSERT INTO "{table}".*;$', VERSION_1, re.MULTILINE):
                connection.exec_driver_sql(statement.replace("%", "%%"))
    engine.dispose()


def shape(connection):
    """Tables with their columns, keys and indexes, as the database tells them."""
    inspector = sa.inspect(connection)
    found = {}
    for name in inspector.get_table_names():
        columns = {
            column["name"]: (
                re.sub(r"DOUBLE_?\s?PRECISION.*", "FLOAT", str(column["type"]).upper()),
                column["nullable"],
            )
            for column in inspector.get_columns(name)
        }
        foreign = {
            (tuple(key["constrained_columns"]), key["referred_table"], key["options"].get("ondelete"))
            for key in inspector.get_foreign_keys(name)
        }
        unique = {tuple(entry["column_names"]) for entry in inspector.get_unique_constraints(name)}
        indexes = {
            (index["name"], tuple(index["column_names"]))
            for index in inspector.get_indexes(name)
            if not index.get("duplicates_constraint")
        }
        if (
            connection.dialect.name == "sqlite"
        ):  # SQLAlchemy reads these out of the statement's text, and overlooks some
            keys = connection.exec_driver_sql(f"PRAGMA foreign_key_list({name})").mappings().all()
            foreign = {((key["from"],), key["table"], key["on_delete"]) for key in keys}
            uniques = [
                row["name"]
                for row in connection.exec_driver_sql(f"PRAGMA index_list({name})").mappings()
                if row["origin"] == "u"
            ]
            unique = {
                tuple(row["name"] for row in connection.exec_driver_sql(f"PRAGMA index_info({index})").mappings())
                for index in uniques
            }
        found[name] = (
            columns,
            tuple(inspector.get_pk_constraint(name)["constrained_columns"]),
            foreign,
            unique,
            indexes,
        )
    return found


@pytest.mark.parametrize("begin", [0, 1])
def test_the_steps_lead_to_the_schema(location, other_location, begin):
    if begin:
        make_version_1(location)
    with Store(location).writing() as connection:
        walked = shape(connection)
    engine = sa.create_engine(
        other_location if "://" in other_location else f"sqlite:///{other_location}", poolclass=sa.pool.NullPool
    )
    with engine.begin() as connection:
        schema.METADATA.create_all(connection)
        made = shape(connection)
    assert walked == made and len(made) == len(schema.METADATA.tables) > 20


def test_an_old_store_is_only_refused_to_readers(location):
    make_version_1(location)
    with pytest.raises(GridError) as caught, Store(location).reading():
        pass
    assert (caught.value.code, caught.value.details) == ("store_older", {"version": 1, "known": migrations.VERSION})


def test_what_release_0_1_0_left_is_there_afterwards(location):
    make_version_1(location)
    with Store(location).writing():
        pass
    with Store(location).reading() as connection:
        machines = {row["name"]: row for row in query.machines(connection)}
        hosts = {row["name"]: row for row in query.hosts(connection)}
        networks = connection.execute(
            sa.select(schema.HOST.c.name, schema.NETWORK.c.name, schema.INTERFACE.c.mac)
            .join_from(schema.INTERFACE, schema.NETWORK, schema.NETWORK.c.uuid == schema.INTERFACE.c.network)
            .join(schema.HOST, schema.HOST.c.uuid == schema.INTERFACE.c.host)
            .order_by(schema.HOST.c.name)
        ).all()
        events = query.events(connection, machines["web3"]["uuid"])
        assert migrations.version_of(connection) == migrations.VERSION
    assert {
        name: (row["owner"], views.state_of(row), row["provider"], row["cpus"]) for name, row in machines.items()
    } == {
        "web1": ("alice", "running", "provider1", 1),
        "web2": ("alice", "placed", "provider2", 1),
        "web3": ("alice", "future", None, 2),
    }
    assert [tuple(row) for row in networks] == [
        ("web1", "virtuoso", "52:54:00:00:00:01"),
        ("web2", "lab", None),
        ("web3", "virtuoso", None),
    ]
    assert [event["what"] for event in events] == ["ordered", "changed"]
    measured = ("architecture", "load", "memory_free", "disk_free", "virtualization", "qemu_version", "cpus_allocated")
    assert [hosts["provider2"][column] for column in measured] == ["x86_64", 0.1, 15 * GIB, 5 * GIB, "kvm", "7.2.22", 1]
    assert [hosts["provider1"][column] for column in measured] == ["x86_64", 0.1, 15 * GIB, None, None, None, None]
    assert hosts["home1"]["memory_free"] is None


def test_rows_are_numbered_on_after_the_step(location):
    make_version_1(location)
    if "://" in location:  # the dump's rows were numbered by hand there
        with Store(location).writing() as connection:
            connection.exec_driver_sql("SELECT setval('event_id_seq', (SELECT max(id) FROM event))")
    with Store(location).writing() as connection:
        uuid = query.machines(connection, names=["web1"])[0]["uuid"]
        connection.execute(
            schema.EVENT.insert(), {"object": uuid, "time": "2026-11-02T00:00:00Z", "what": "moved", "details": {}}
        )
        connection.execute(
            schema.SAMPLE.insert(), {"object": uuid, "metric": "load", "time": "2026-11-02T00:00:00Z", "value": 1.5}
        )
    with Store(location).reading() as connection:
        assert [event["what"] for event in query.events(connection, uuid)] == ["ordered", "exist", "moved"]


@pytest.mark.parametrize(
    "told",
    [
        '"text"',
        "[1]",
        '{"load": "much", "memory_free": -1, "architecture": 7, "disk_free": true, "network": 5, "mac": []}',
    ],
)
def test_facts_that_no_honest_provider_sends_are_left_out(location, told):
    make_version_1(location)
    engine = sa.create_engine(location if "://" in location else f"sqlite:///{location}", poolclass=sa.pool.NullPool)
    with engine.begin() as connection:
        connection.execute(
            sa.text("UPDATE host SET facts = :told"), {"told": told}
        ) if "://" not in location else connection.execute(
            sa.text("UPDATE host SET facts = CAST(:told AS json)"), {"told": told}
        )
    with Store(location).writing() as connection:
        rows = query.hosts(connection)
    assert [(row["load"], row["memory_free"], row["architecture"], row["disk_free"]) for row in rows] == [
        (None, None, None, None)
    ] * 3
