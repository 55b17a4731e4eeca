# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The relations of the information service, and how a store of an older version becomes one of this version.

Every object has a uuid and one row in ``object``; whatever belongs to it refers to that row and goes with it. A machine
is a host. ``virtualization`` says what a virtual object is made of, ``futures`` which objects are not there yet.

Sizes are bytes; times are text, ISO 8601 in UTC, whole seconds: they sort, and read the same in every database.
"""

from __future__ import annotations

import typing as t

try:
    import sqlalchemy as sa
except ImportError as exc:
    SQLALCHEMY_ERROR: ImportError | None = exc
else:
    SQLALCHEMY_ERROR = None

    METADATA = sa.MetaData()

    def _uuid(name: str, parent: str, delete: str = "CASCADE", **options: t.Any) -> sa.Column[str]:
        return sa.Column(name, sa.String(36), sa.ForeignKey(f"{parent}.uuid", ondelete=delete), **options)

    SCHEMA_VERSION_TABLE = sa.Table("schema_version", METADATA, sa.Column("version", sa.Integer, nullable=False))

    OBJECT = sa.Table(
        "object",
        METADATA,
        sa.Column("uuid", sa.String(36), primary_key=True),
        sa.Column("kind", sa.String(16), nullable=False),
    )

    SITE = sa.Table(
        "site",
        METADATA,
        _uuid("uuid", "object", primary_key=True),
        sa.Column("name", sa.String(64), nullable=False, unique=True),
    )

    HOST = sa.Table(
        "host",
        METADATA,
        _uuid("uuid", "object", primary_key=True),
        sa.Column("name", sa.String(253), nullable=False, unique=True),
        sa.Column("kind", sa.String(16), nullable=False, index=True),  # provider, home or machine
        _uuid("site", "site", delete="SET NULL"),
        sa.Column("state", sa.String(16)),
        # How the host is reached; of a machine: its first usable address.
        sa.Column("address", sa.String(253)),
        sa.Column("port", sa.Integer),
        sa.Column("login", sa.String(64)),
        sa.Column("identity_file", sa.Text),
        sa.Column("ssh_args", sa.Text),
        # What the host has; of a future machine: what it will have.
        sa.Column("cpus", sa.Integer),
        sa.Column("memory", sa.BigInteger),
        sa.Column("disk", sa.BigInteger),
        sa.Column("generation", sa.Integer),
        sa.Column("facts", sa.JSON, nullable=False),
        sa.Column("seen", sa.String(20)),
    )

    ORDERS = sa.Table(
        "orders",
        METADATA,
        _uuid("uuid", "host", primary_key=True),
        sa.Column("owner", sa.String(64), nullable=False, index=True),
        sa.Column("spec", sa.JSON, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("created", sa.String(20), nullable=False),
        sa.Column("updated", sa.String(20), nullable=False),
    )

    VIRTUALIZATION = sa.Table(
        "virtualization",
        METADATA,
        _uuid("virtual", "object", primary_key=True),
        _uuid("constituent", "object", delete="RESTRICT", primary_key=True),
        sa.Column("role", sa.String(16), primary_key=True),  # provider or image
        sa.Index("virtualization_of", "constituent", "role"),
    )

    FUTURES = sa.Table(
        "futures",
        METADATA,
        _uuid("uuid", "object", primary_key=True),
    )

    IMAGE = sa.Table(
        "image",
        METADATA,
        _uuid("uuid", "object", primary_key=True),
        sa.Column("name", sa.String(64), index=True),
        sa.Column("version", sa.String(64)),
        sa.Column("digest", sa.String(80), nullable=False, index=True),  # of the topmost layer
        sa.Column("virtual_size", sa.BigInteger),
    )

    LAYER = sa.Table(
        "layer",
        METADATA,
        _uuid("uuid", "object", primary_key=True),
        sa.Column("digest", sa.String(80), nullable=False, unique=True),
        sa.Column("size", sa.BigInteger),
    )

    IMAGE_LAYER = sa.Table(
        "image_layer",
        METADATA,
        _uuid("image", "image", primary_key=True),
        sa.Column("position", sa.Integer, primary_key=True),  # 0 is the lowest
        _uuid("layer", "layer", delete="RESTRICT", nullable=False),
    )

    LAYER_LOCATION = sa.Table(
        "layer_location",
        METADATA,
        _uuid("layer", "layer", primary_key=True),
        _uuid("host", "host", primary_key=True),
    )

    EVENT = sa.Table(
        "event",
        METADATA,
        sa.Column("id", sa.Integer, primary_key=True),
        _uuid("object", "object", nullable=False, index=True),
        sa.Column("time", sa.String(20), nullable=False),
        sa.Column("what", sa.String(32), nullable=False),
        sa.Column("details", sa.JSON, nullable=False),
    )


def _first(connection: sa.Connection) -> None:
    METADATA.create_all(connection)


Migration = t.Callable[["sa.Connection"], None]

MIGRATIONS: tuple[Migration, ...] = (_first,)
"""The n-th brings a store from version n to n+1. Each is frozen once released: ``_first`` must then list its tables itself."""

VERSION = len(MIGRATIONS)


def migrate(connection: sa.Connection, have: int) -> None:
    """Bring the store behind ``connection`` from version ``have`` to the newest, inside the caller's transaction."""
    for step in MIGRATIONS[have:]:
        step(connection)
    statement = SCHEMA_VERSION_TABLE.update() if have else SCHEMA_VERSION_TABLE.insert()
    connection.execute(statement, {"version": VERSION})


def version_of(connection: sa.Connection) -> int | None:
    """The version of the store: 0 where the database is empty, ``None`` where it holds something else than a store."""
    names = sa.inspect(connection).get_table_names()
    if SCHEMA_VERSION_TABLE.name not in names:
        return None if names else 0
    rows = connection.execute(sa.select(SCHEMA_VERSION_TABLE.c.version)).all()
    return rows[0].version if len(rows) == 1 else None
