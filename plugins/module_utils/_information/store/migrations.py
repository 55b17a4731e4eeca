# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Migrations of the store: one step from each version to the next, from 0, the empty database.

A new store takes the same steps, so each of them is always exercised. A step never changes after its release; that is
why the statements are text here and don't follow :mod:`schema`. A test compares the outcome with ``schema.METADATA``.
"""

from __future__ import annotations

import typing as t
import uuid as uuids

from ansible_collections.virtuoso.grid.plugins.module_utils._information.store import schema

try:
    import sqlalchemy as sa
except ImportError:
    pass  # schema.SQLALCHEMY_ERROR has the reason

_VERSION_1 = """
CREATE TABLE schema_version (version INTEGER NOT NULL);
CREATE TABLE object (uuid VARCHAR(36) NOT NULL PRIMARY KEY, kind VARCHAR(16) NOT NULL);
CREATE TABLE site (
  uuid VARCHAR(36) NOT NULL PRIMARY KEY REFERENCES object (uuid) ON DELETE CASCADE, name VARCHAR(64) NOT NULL UNIQUE);
CREATE TABLE host (
  uuid VARCHAR(36) NOT NULL PRIMARY KEY REFERENCES object (uuid) ON DELETE CASCADE, name VARCHAR(253) NOT NULL UNIQUE,
  kind VARCHAR(16) NOT NULL, site VARCHAR(36) REFERENCES site (uuid) ON DELETE SET NULL, state VARCHAR(16),
  address VARCHAR(253),
  port INTEGER, login VARCHAR(64), identity_file TEXT, ssh_args TEXT, cpus INTEGER, memory BIGINT, disk BIGINT,
  generation INTEGER,
  facts JSON NOT NULL, seen VARCHAR(20));
CREATE INDEX ix_host_kind ON host (kind);
CREATE TABLE orders (
  uuid VARCHAR(36) NOT NULL PRIMARY KEY REFERENCES host (uuid) ON DELETE CASCADE, owner VARCHAR(64) NOT NULL,
  spec JSON NOT NULL,
  generation INTEGER NOT NULL, created VARCHAR(20) NOT NULL, updated VARCHAR(20) NOT NULL);
CREATE INDEX ix_orders_owner ON orders (owner);
CREATE TABLE virtualization (
  "virtual" VARCHAR(36) NOT NULL REFERENCES object (uuid) ON DELETE CASCADE,
  constituent VARCHAR(36) NOT NULL REFERENCES object (uuid) ON DELETE RESTRICT,
  role VARCHAR(16) NOT NULL, PRIMARY KEY ("virtual", constituent, role));
CREATE INDEX virtualization_of ON virtualization (constituent, role);
CREATE TABLE futures (uuid VARCHAR(36) NOT NULL PRIMARY KEY REFERENCES object (uuid) ON DELETE CASCADE);
CREATE TABLE image (
  uuid VARCHAR(36) NOT NULL PRIMARY KEY REFERENCES object (uuid) ON DELETE CASCADE, name VARCHAR(64),
  version VARCHAR(64),
  digest VARCHAR(80) NOT NULL, virtual_size BIGINT);
CREATE INDEX ix_image_name ON image (name);
CREATE INDEX ix_image_digest ON image (digest);
CREATE TABLE layer (
  uuid VARCHAR(36) NOT NULL PRIMARY KEY REFERENCES object (uuid) ON DELETE CASCADE, digest VARCHAR(80) NOT NULL UNIQUE,
  size BIGINT);
CREATE TABLE image_layer (
  image VARCHAR(36) NOT NULL REFERENCES image (uuid) ON DELETE CASCADE, position INTEGER NOT NULL,
  layer VARCHAR(36) NOT NULL REFERENCES layer (uuid) ON DELETE RESTRICT, PRIMARY KEY (image, position));
CREATE TABLE layer_location (
  layer VARCHAR(36) NOT NULL REFERENCES layer (uuid) ON DELETE CASCADE,
  host VARCHAR(36) NOT NULL REFERENCES host (uuid) ON DELETE CASCADE, PRIMARY KEY (layer, host));
CREATE TABLE event (
  id {serial} NOT NULL PRIMARY KEY, object VARCHAR(36) NOT NULL REFERENCES object (uuid) ON DELETE CASCADE,
  time VARCHAR(20) NOT NULL, what VARCHAR(32) NOT NULL, details JSON NOT NULL);
CREATE INDEX ix_event_object ON event (object);
"""

_VERSION_2 = """
ALTER TABLE host ADD COLUMN missing VARCHAR(20);
ALTER TABLE host ADD COLUMN architecture VARCHAR(16);
ALTER TABLE host ADD COLUMN virtualization VARCHAR(16);
ALTER TABLE host ADD COLUMN libvirt_version VARCHAR(32);
ALTER TABLE host ADD COLUMN qemu_version VARCHAR(32);
ALTER TABLE host ADD COLUMN load FLOAT;
ALTER TABLE host ADD COLUMN cpus_allocated INTEGER;
ALTER TABLE host ADD COLUMN memory_free BIGINT;
ALTER TABLE host ADD COLUMN memory_allocated BIGINT;
ALTER TABLE host ADD COLUMN disk_free BIGINT;
ALTER TABLE host ADD COLUMN disk_allocated BIGINT;
ALTER TABLE host ADD COLUMN price FLOAT;
UPDATE host SET missing = seen WHERE state = 'absent';
CREATE TABLE network (
  uuid VARCHAR(36) NOT NULL PRIMARY KEY REFERENCES object (uuid) ON DELETE CASCADE, name VARCHAR(64) NOT NULL UNIQUE,
  home VARCHAR(36) REFERENCES host (uuid) ON DELETE SET NULL, owner VARCHAR(64), vni INTEGER UNIQUE, mtu INTEGER);
CREATE TABLE network_site (
  network VARCHAR(36) NOT NULL REFERENCES network (uuid) ON DELETE CASCADE,
  site VARCHAR(36) NOT NULL REFERENCES site (uuid) ON DELETE CASCADE, mac_prefix VARCHAR(17),
  PRIMARY KEY (network, site));
CREATE TABLE interface (
  host VARCHAR(36) NOT NULL REFERENCES host (uuid) ON DELETE CASCADE,
  network VARCHAR(36) NOT NULL REFERENCES network (uuid) ON DELETE CASCADE, mac VARCHAR(17),
  PRIMARY KEY (host, network));
CREATE INDEX interface_of ON interface (network, host);
CREATE TABLE link (
  uuid VARCHAR(36) NOT NULL PRIMARY KEY REFERENCES object (uuid) ON DELETE CASCADE,
  site_a VARCHAR(36) NOT NULL REFERENCES site (uuid) ON DELETE CASCADE,
  site_b VARCHAR(36) NOT NULL REFERENCES site (uuid) ON DELETE CASCADE,
  kind VARCHAR(16) NOT NULL, transport VARCHAR(16) NOT NULL, vni INTEGER UNIQUE, mtu INTEGER, state VARCHAR(16),
  details JSON NOT NULL,
  seen VARCHAR(20));
CREATE TABLE link_network (
  link VARCHAR(36) NOT NULL REFERENCES link (uuid) ON DELETE CASCADE,
  network VARCHAR(36) NOT NULL REFERENCES network (uuid) ON DELETE CASCADE, PRIMARY KEY (link, network));
CREATE TABLE device (
  uuid VARCHAR(36) NOT NULL PRIMARY KEY REFERENCES object (uuid) ON DELETE CASCADE, name VARCHAR(64) NOT NULL,
  kind VARCHAR(16) NOT NULL,
  home VARCHAR(36) REFERENCES host (uuid) ON DELETE CASCADE,
  machine VARCHAR(36) REFERENCES host (uuid) ON DELETE SET NULL,
  state VARCHAR(16), details JSON NOT NULL, seen VARCHAR(20));
CREATE INDEX ix_device_machine ON device (machine);
CREATE TABLE reservation (
  uuid VARCHAR(36) NOT NULL PRIMARY KEY REFERENCES object (uuid) ON DELETE CASCADE,
  machine VARCHAR(36) REFERENCES host (uuid) ON DELETE CASCADE, owner VARCHAR(64) NOT NULL,
  provider VARCHAR(36) NOT NULL REFERENCES host (uuid) ON DELETE CASCADE, cpu_period_us INTEGER, cpu_slice_us INTEGER,
  memory BIGINT,
  "begin" VARCHAR(20) NOT NULL, "end" VARCHAR(20) NOT NULL, state VARCHAR(16) NOT NULL, created VARCHAR(20) NOT NULL);
CREATE INDEX ix_reservation_machine ON reservation (machine);
CREATE INDEX reservation_time ON reservation (provider, "end");
CREATE TABLE quota (
  owner VARCHAR(64) NOT NULL PRIMARY KEY, vcpus INTEGER, memory BIGINT, disk BIGINT, machines INTEGER);
CREATE TABLE sample (
  id {bigserial} NOT NULL PRIMARY KEY, object VARCHAR(36) NOT NULL REFERENCES object (uuid) ON DELETE CASCADE,
  peer VARCHAR(36) REFERENCES object (uuid) ON DELETE CASCADE, metric VARCHAR(32) NOT NULL, time VARCHAR(20) NOT NULL,
  value FLOAT NOT NULL);
CREATE INDEX sample_of ON sample (object, metric, time);
CREATE INDEX sample_peer ON sample (peer);
CREATE TABLE foreign_domain (
  provider VARCHAR(36) NOT NULL REFERENCES host (uuid) ON DELETE CASCADE, uuid VARCHAR(36) NOT NULL,
  name VARCHAR(253) NOT NULL,
  state VARCHAR(16), seen VARCHAR(20) NOT NULL, missing VARCHAR(20), PRIMARY KEY (provider, uuid));
"""

_COUNTS = {
    "cpus_allocated": 2**31,
    **dict.fromkeys(("memory_free", "memory_allocated", "disk_free", "disk_allocated"), 2**63),
}
"""The counts among the new columns of version 2, each with its upper bound (excluded)."""


def _run(connection: sa.Connection, statements: str) -> None:
    """Run the statements one by one: SQLite's executescript would commit the transaction first."""
    serial = (
        {"serial": "INTEGER", "bigserial": "INTEGER"}
        if connection.dialect.name == "sqlite"
        else {"serial": "SERIAL", "bigserial": "BIGSERIAL"}
    )
    for statement in statements.format(**serial).split(";"):
        if statement.strip():
            connection.exec_driver_sql(statement)


def _first(connection: sa.Connection) -> None:
    _run(connection, _VERSION_1)


def _second(connection: sa.Connection) -> None:
    """Give columns to the facts that queries compare, and make objects of the networks that machines name."""
    _run(connection, _VERSION_2)
    columns = ("architecture", "virtualization", "libvirt_version", "qemu_version", "load", *_COUNTS)
    host = sa.table("host", *map(sa.column, ("uuid", "kind", *columns)), sa.column("facts", sa.JSON))
    orders = sa.table("orders", sa.column("uuid"), sa.column("spec", sa.JSON))
    known = sa.select(host.c.uuid, host.c.kind, host.c.facts, orders.c.spec).outerjoin_from(
        host, orders, orders.c.uuid == host.c.uuid
    )
    networks: dict[str, str] = {}
    values, interfaces = [], []
    for uuid, kind, facts_json, spec_json in connection.execute(known).all():
        facts, spec = (value if isinstance(value, dict) else {} for value in (facts_json, spec_json))
        if kind != "machine":
            values.append({"b_uuid": uuid, **_measured(facts)})
            continue
        name = facts.get("network") or spec.get("network")
        if isinstance(name, str) and len(name) <= 64:
            network = networks.setdefault(name, str(uuids.uuid4()))
            mac = facts.get("mac") if isinstance(facts.get("mac"), str) and len(facts["mac"]) <= 17 else None
            interfaces.append({"host": uuid, "network": network, "mac": mac})
    if values:
        changed: dict[str, sa.BindParameter] = {
            column: sa.bindparam(column) for column in values[0] if column != "b_uuid"
        }
        connection.execute(host.update().where(host.c.uuid == sa.bindparam("b_uuid")).values(changed), values)
    rows = [{"uuid": uuid, "name": name} for name, uuid in networks.items()]
    for statement, parameters in (
        ("INSERT INTO object (uuid, kind) VALUES (:uuid, 'network')", rows),
        ("INSERT INTO network (uuid, name) VALUES (:uuid, :name)", rows),
        ("INSERT INTO interface (host, network, mac) VALUES (:host, :network, :mac)", interfaces),
    ):
        if parameters:
            connection.execute(sa.text(statement), parameters)


def _measured(facts: t.Mapping[str, object]) -> dict[str, str | int | float | None]:
    """Columns of version 2 from the facts of version 1; ``None`` for a fact that doesn't have the column's form."""
    values: dict[str, str | int | float | None] = {}
    for name, length in {"architecture": 16, "virtualization": 16, "libvirt_version": 32, "qemu_version": 32}.items():
        text = facts.get(name)
        values[name] = text if isinstance(text, str) and len(text) <= length else None
    load = facts.get("load")
    values["load"] = float(load) if isinstance(load, (int, float)) else None
    for name, limit in _COUNTS.items():
        count = facts.get(name)
        values[name] = count if isinstance(count, int) and not isinstance(count, bool) and 0 <= count < limit else None
    return values


Migration = t.Callable[["sa.Connection"], None]

MIGRATIONS: tuple[Migration, ...] = (_first, _second)
"""The n-th, counted from 0, brings a store from version n to n+1."""

VERSION = len(MIGRATIONS)


def migrate(connection: sa.Connection, have: int) -> None:
    """Bring the store behind ``connection`` from version ``have`` to the newest, inside the caller's transaction."""
    for step in MIGRATIONS[have:]:
        step(connection)
    statement = schema.SCHEMA_VERSION_TABLE.update() if have else schema.SCHEMA_VERSION_TABLE.insert()
    connection.execute(statement, {"version": VERSION})


def version_of(connection: sa.Connection) -> int | None:
    """The version of the store: 0 for an empty database, ``None`` for a database that is no store."""
    names = sa.inspect(connection).get_table_names()
    if schema.SCHEMA_VERSION_TABLE.name not in names:
        return None if names else 0
    rows = connection.execute(sa.select(schema.SCHEMA_VERSION_TABLE.c.version)).all()
    return rows[0].version if len(rows) == 1 else None
