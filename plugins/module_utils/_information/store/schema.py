# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tables of the store as they are in the newest version; :mod:`migrations` creates them.

Every object has a uuid and one row in ``object``. All its other rows refer to that row and are deleted with it. A
machine is a host. ``virtualization`` says what a virtual object is made of, ``futures`` which objects don't exist yet.

Sizes are bytes. Times are text, ISO 8601 in UTC, whole seconds: they sort, and read the same in every database. What
queries compare has a column of its own; ``facts`` keeps the rest of what a host reported.
"""

from __future__ import annotations

try:
    import sqlalchemy as sa
except ImportError as exc:
    SQLALCHEMY_ERROR: ImportError | None = exc
else:
    SQLALCHEMY_ERROR = None

    METADATA = sa.MetaData()

    def _uuid(name: str, parent: str, delete: str = "CASCADE", **options: bool) -> sa.Column[str]:
        key = sa.ForeignKey(f"{parent}.uuid", ondelete=delete)
        return sa.Column(name, sa.String(36), key, **options)  # type: ignore[arg-type]  # mypy can't match ** to names

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
        # Since when a machine is missing: its provider answers, and doesn't have it.
        sa.Column("missing", sa.String(20)),
        # What a provider measured when it was last seen.
        sa.Column("architecture", sa.String(16)),
        sa.Column("virtualization", sa.String(16)),  # kvm or qemu
        sa.Column("libvirt_version", sa.String(32)),
        sa.Column("qemu_version", sa.String(32)),
        sa.Column("load", sa.Float),
        sa.Column("cpus_allocated", sa.Integer),
        sa.Column("memory_free", sa.BigInteger),
        sa.Column("memory_allocated", sa.BigInteger),
        sa.Column("disk_free", sa.BigInteger),
        sa.Column("disk_allocated", sa.BigInteger),
        sa.Column("price", sa.Float),  # per hour, in the currency that the grid uses
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

    NETWORK = sa.Table(
        "network",
        METADATA,
        _uuid("uuid", "object", primary_key=True),
        sa.Column("name", sa.String(64), nullable=False, unique=True),
        _uuid("home", "host", delete="SET NULL"),
        sa.Column("owner", sa.String(64)),
        sa.Column("vni", sa.Integer, unique=True),
        sa.Column("mtu", sa.Integer),
    )

    NETWORK_SITE = sa.Table(
        "network_site",
        METADATA,
        _uuid("network", "network", primary_key=True),
        _uuid("site", "site", primary_key=True),
        sa.Column("mac_prefix", sa.String(17)),
    )

    INTERFACE = sa.Table(
        "interface",
        METADATA,
        _uuid("host", "host", primary_key=True),
        _uuid("network", "network", primary_key=True),
        sa.Column("mac", sa.String(17)),
        sa.Index("interface_of", "network", "host"),
    )

    LINK = sa.Table(
        "link",
        METADATA,
        _uuid("uuid", "object", primary_key=True),
        _uuid("site_a", "site", nullable=False),
        _uuid("site_b", "site", nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),  # tree or shortcut
        sa.Column("transport", sa.String(16), nullable=False),
        sa.Column("vni", sa.Integer, unique=True),
        sa.Column("mtu", sa.Integer),
        sa.Column("state", sa.String(16)),
        sa.Column("details", sa.JSON, nullable=False),
        sa.Column("seen", sa.String(20)),
    )

    LINK_NETWORK = sa.Table(
        "link_network",
        METADATA,
        _uuid("link", "link", primary_key=True),
        _uuid("network", "network", primary_key=True),
    )

    DEVICE = sa.Table(
        "device",
        METADATA,
        _uuid("uuid", "object", primary_key=True),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),  # cd, floppy, disk or usb
        _uuid("home", "host"),
        _uuid("machine", "host", delete="SET NULL", index=True),  # that it is attached to
        sa.Column("state", sa.String(16)),
        sa.Column("details", sa.JSON, nullable=False),
        sa.Column("seen", sa.String(20)),
    )

    RESERVATION = sa.Table(
        "reservation",
        METADATA,
        _uuid("uuid", "object", primary_key=True),
        _uuid("machine", "host", index=True),  # whose it is; without one it is the owner's
        sa.Column("owner", sa.String(64), nullable=False),
        _uuid("provider", "host", nullable=False),
        sa.Column("cpu_period_us", sa.Integer),
        sa.Column("cpu_slice_us", sa.Integer),
        sa.Column("memory", sa.BigInteger),
        sa.Column("begin", sa.String(20), nullable=False),
        sa.Column("end", sa.String(20), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("created", sa.String(20), nullable=False),
        sa.Index("reservation_time", "provider", "end"),
    )

    QUOTA = sa.Table(
        "quota",
        METADATA,
        sa.Column("owner", sa.String(64), primary_key=True),
        # What the owner's machines may have in all; NULL is no bound.
        sa.Column("vcpus", sa.Integer),
        sa.Column("memory", sa.BigInteger),
        sa.Column("disk", sa.BigInteger),
        sa.Column("machines", sa.Integer),
    )

    SAMPLE = sa.Table(
        "sample",
        METADATA,
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        _uuid("object", "object", nullable=False),
        _uuid("peer", "object"),  # of what is measured between two
        sa.Column("metric", sa.String(32), nullable=False),
        sa.Column("time", sa.String(20), nullable=False),
        sa.Column("value", sa.Float, nullable=False),
        sa.Index("sample_of", "object", "metric", "time"),
        sa.Index("sample_peer", "peer"),
    )

    FOREIGN_DOMAIN = sa.Table(
        "foreign_domain",
        METADATA,
        # Domains on providers that are not the grid's: they are listed, never touched.
        _uuid("provider", "host", primary_key=True),
        sa.Column("uuid", sa.String(36), primary_key=True),
        sa.Column("name", sa.String(253), nullable=False),
        sa.Column("state", sa.String(16)),
        sa.Column("seen", sa.String(20), nullable=False),
        sa.Column("missing", sa.String(20)),
    )
