# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading from the store: machines, hosts, images and more, as the records of :mod:`records`. Nothing here writes."""

from __future__ import annotations

import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._information.store import schema
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store.records import (
    EventRow,
    ForeignDomainRow,
    HostRow,
    ImageRow,
    MachineRow,
)

try:
    import sqlalchemy as sa
except ImportError:
    pass  # schema.SQLALCHEMY_ERROR has the reason

_Record = t.TypeVar("_Record")

_MOST_PARAMETERS = 1000
"""Databases limit a statement's parameters. With more values than this, all rows are read and filtered here."""


class _Plug(t.TypedDict):
    host: str
    name: str
    mac: str | None


class _LayerPlace(t.TypedDict):
    host: str
    digest: str


def _select(
    connection: sa.Connection,
    record: type[_Record],
    query: sa.Select,
    column: sa.ColumnElement | None = None,
    values: t.Iterable[str] | None = None,
) -> list[_Record]:
    """The rows of ``query``, only those whose ``column`` is among ``values`` if these are given.

    :param record: what a row is; its keys are the columns of ``query``.
    """
    wanted = None if values is None else set(values)
    if wanted is not None and len(wanted) <= _MOST_PARAMETERS and column is not None:
        query = query.where(column.in_(sorted(wanted)))
        wanted = None
    rows = [dict(row) for row in connection.execute(query).mappings()]
    if wanted is not None and column is not None:
        rows = [row for row in rows if row[column.name] in wanted]
    return t.cast("list[_Record]", rows)


def machines(
    connection: sa.Connection, *, names: t.Iterable[str] | None = None, uuids: t.Iterable[str] | None = None
) -> list[MachineRow]:
    """Machines, existing and future, ordered by name; all of them if neither names nor uuids are given."""
    host, orders = schema.HOST, schema.ORDERS
    on, made_from = schema.VIRTUALIZATION.alias("on_provider"), schema.VIRTUALIZATION.alias("from_image")
    provider = schema.HOST.alias("provider")
    plug, network, home = schema.INTERFACE, schema.NETWORK, schema.HOST.alias("home")
    at_home = (
        sa.select(home.c.name)
        .select_from(plug.join(network, network.c.uuid == plug.c.network).join(home, home.c.uuid == network.c.home))
        .where(plug.c.host == host.c.uuid)
        .order_by(network.c.name)
        .limit(1)
        .scalar_subquery()
    )
    query = (
        sa.select(
            *(column for column in host.c if column.name != "site"),
            schema.SITE.c.name.label("site"),
            *(orders.c[name] for name in ("owner", "spec", "created", "updated")),
            orders.c.generation.label("ordered_generation"),
            schema.FUTURES.c.uuid.is_not(None).label("future"),
            provider.c.name.label("provider"),
            provider.c.uuid.label("provider_uuid"),
            made_from.c.constituent.label("image_uuid"),
            at_home.label("network_home"),
        )
        .select_from(host)
        .outerjoin(schema.SITE, schema.SITE.c.uuid == host.c.site)
        .outerjoin(orders, orders.c.uuid == host.c.uuid)
        .outerjoin(schema.FUTURES, schema.FUTURES.c.uuid == host.c.uuid)
        .outerjoin(on, sa.and_(on.c.virtual == host.c.uuid, on.c.role == "provider"))
        .outerjoin(provider, provider.c.uuid == on.c.constituent)
        .outerjoin(made_from, sa.and_(made_from.c.virtual == host.c.uuid, made_from.c.role == "image"))
        .where(host.c.kind == "machine")
        .order_by(host.c.name)
    )
    if uuids is not None:
        rows = _select(connection, MachineRow, query, host.c.uuid, uuids)
        return rows if names is None else [row for row in rows if row["name"] in set(names)]
    return _select(connection, MachineRow, query, host.c.name, names)


def hosts(
    connection: sa.Connection, *, names: t.Iterable[str] | None = None, kinds: t.Iterable[str] = ("provider", "home")
) -> list[HostRow]:
    """Hosts of the given kinds, ordered by name."""
    host = schema.HOST
    query = (
        sa.select(*(column for column in host.c if column.name != "site"), schema.SITE.c.name.label("site"))
        .select_from(host)
        .outerjoin(schema.SITE, schema.SITE.c.uuid == host.c.site)
        .where(host.c.kind.in_(list(kinds)))
        .order_by(host.c.name)
    )
    return _select(connection, HostRow, query, host.c.name, names)


def host_uuids(connection: sa.Connection) -> dict[str, str]:
    """uuid of each host, machines too, by name."""
    return {row.name: row.uuid for row in connection.execute(sa.select(schema.HOST.c.name, schema.HOST.c.uuid))}


def foreign_domains(connection: sa.Connection) -> dict[tuple[str, str], ForeignDomainRow]:
    """Domains that are not the grid's, by the name of their provider and their uuid."""
    table, host = schema.FOREIGN_DOMAIN, schema.HOST
    query = sa.select(host.c.name.label("provider_name"), *table.c).join_from(
        table, host, host.c.uuid == table.c.provider
    )
    return {(row["provider_name"], row["uuid"]): row for row in _select(connection, ForeignDomainRow, query)}


def sites(connection: sa.Connection) -> dict[str, str]:
    """uuid of each site by name."""
    return {row.name: row.uuid for row in connection.execute(sa.select(schema.SITE.c.name, schema.SITE.c.uuid))}


def networks(connection: sa.Connection) -> dict[str, str]:
    """uuid of each network by name."""
    return {row.name: row.uuid for row in connection.execute(sa.select(schema.NETWORK.c.name, schema.NETWORK.c.uuid))}


def plugs(connection: sa.Connection, uuids: t.Iterable[str]) -> dict[str, tuple[str, str | None]]:
    """The network and MAC address of each of these hosts, by uuid; one of its networks where it is on several."""
    plug, network = schema.INTERFACE, schema.NETWORK
    query = sa.select(plug.c.host, network.c.name, plug.c.mac).join_from(
        plug, network, network.c.uuid == plug.c.network
    )
    return {row["host"]: (row["name"], row["mac"]) for row in _select(connection, _Plug, query, plug.c.host, uuids)}


def images(connection: sa.Connection, digests: t.Iterable[str] | None = None) -> list[ImageRow]:
    """Images, ordered by the digest of their topmost layer."""
    image = schema.IMAGE
    query = (
        sa.select(*image.c, sa.func.sum(schema.LAYER.c.size).label("size"))
        .select_from(image)
        .outerjoin(schema.IMAGE_LAYER, schema.IMAGE_LAYER.c.image == image.c.uuid)
        .outerjoin(schema.LAYER, schema.LAYER.c.uuid == schema.IMAGE_LAYER.c.layer)
        .group_by(*image.c)
        .order_by(image.c.digest, image.c.name, image.c.version)
    )
    return _select(connection, ImageRow, query, image.c.digest, digests)


def layer_places(connection: sa.Connection, hosts_uuids: t.Iterable[str] | None = None) -> dict[str, set[str]]:
    """The digests of the layers that each host has, by the host's uuid."""
    place = schema.LAYER_LOCATION
    query = sa.select(place.c.host, schema.LAYER.c.digest).join_from(
        place, schema.LAYER, schema.LAYER.c.uuid == place.c.layer
    )
    places: dict[str, set[str]] = {}
    for row in _select(connection, _LayerPlace, query, place.c.host, hosts_uuids):
        places.setdefault(row["host"], set()).add(row["digest"])
    return places


def events(connection: sa.Connection, uuid: str) -> list[EventRow]:
    """The history of an object, oldest first."""
    event = schema.EVENT
    query = sa.select(event.c.time, event.c.what, event.c.details).where(event.c.object == uuid).order_by(event.c.id)
    return _select(connection, EventRow, query)
