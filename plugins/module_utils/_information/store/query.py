# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is asked of the store. Rows are plain dictionaries; nothing here writes."""

from __future__ import annotations

import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._information.store import schema

try:
    import sqlalchemy as sa
except ImportError:
    pass  # schema.SQLALCHEMY_ERROR tells

Row = t.Dict[str, t.Any]

_MOST_PARAMETERS = 1000
"""With more values than this in a condition, all rows are read and sorted out here: databases limit a statement's
parameters."""


def _select(
    connection: sa.Connection,
    query: sa.Select[t.Any],
    column: sa.ColumnElement[t.Any] | None = None,
    values: t.Iterable[str] | None = None,
) -> list[Row]:
    """The rows of ``query``, where ``column`` is among ``values`` if these are given."""
    wanted = None if values is None else set(values)
    if wanted is not None and len(wanted) <= _MOST_PARAMETERS and column is not None:
        query = query.where(column.in_(sorted(wanted)))
        wanted = None
    rows = [dict(row) for row in connection.execute(query).mappings()]
    return rows if wanted is None or column is None else [row for row in rows if row[column.name] in wanted]


def machines(
    connection: sa.Connection, *, names: t.Iterable[str] | None = None, uuids: t.Iterable[str] | None = None
) -> list[Row]:
    """Machines, existing and future, by name; of all names or uuids where these are left out.

    Each has the columns of ``host``, ``site`` as a name, of the order ``owner``, ``spec``, ``ordered_generation``,
    ``created``, ``updated``, and: ``future`` (bool), ``provider`` and ``provider_uuid``, ``image_uuid``,
    ``network_home`` (the home of its network); ``None`` where it has none.
    """
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
        rows = _select(connection, query, host.c.uuid, uuids)
        return rows if names is None else [row for row in rows if row["name"] in set(names)]
    return _select(connection, query, host.c.name, names)


def hosts(
    connection: sa.Connection, *, names: t.Iterable[str] | None = None, kinds: t.Iterable[str] = ("provider", "home")
) -> list[Row]:
    """Hosts of the given kinds by name, with the columns of ``host`` and ``site`` as a name."""
    host = schema.HOST
    query = (
        sa.select(*(column for column in host.c if column.name != "site"), schema.SITE.c.name.label("site"))
        .select_from(host)
        .outerjoin(schema.SITE, schema.SITE.c.uuid == host.c.site)
        .where(host.c.kind.in_(list(kinds)))
        .order_by(host.c.name)
    )
    return _select(connection, query, host.c.name, names)


def host_uuids(connection: sa.Connection) -> dict[str, str]:
    """uuid of each host, machines too, by name."""
    return {row.name: row.uuid for row in connection.execute(sa.select(schema.HOST.c.name, schema.HOST.c.uuid))}


def foreign_domains(connection: sa.Connection) -> dict[tuple[str, str], Row]:
    """Domains that are not the grid's, by the name of their provider and their uuid."""
    table, host = schema.FOREIGN_DOMAIN, schema.HOST
    rows = connection.execute(
        sa.select(host.c.name.label("provider_name"), *table.c).join_from(table, host, host.c.uuid == table.c.provider)
    ).mappings()
    return {(row["provider_name"], row["uuid"]): dict(row) for row in rows}


def sites(connection: sa.Connection) -> dict[str, str]:
    """uuid of each site by name."""
    return {row["name"]: row["uuid"] for row in _select(connection, sa.select(schema.SITE))}


def networks(connection: sa.Connection) -> dict[str, str]:
    """uuid of each network by name."""
    return {row.name: row.uuid for row in connection.execute(sa.select(schema.NETWORK.c.name, schema.NETWORK.c.uuid))}


def plugs(connection: sa.Connection, uuids: t.Iterable[str]) -> dict[str, tuple[str, str | None]]:
    """The network and MAC address of each of these hosts; of one that is on several networks, of one of them."""
    plug, network = schema.INTERFACE, schema.NETWORK
    query = sa.select(plug.c.host, network.c.name, plug.c.mac).join_from(
        plug, network, network.c.uuid == plug.c.network
    )
    return {row["host"]: (row["name"], row["mac"]) for row in _select(connection, query, plug.c.host, uuids)}


def images(connection: sa.Connection, digests: t.Iterable[str] | None = None) -> list[Row]:
    """Images by the digest of their topmost layer, each with ``size``, the sum of its layers' sizes in bytes."""
    image = schema.IMAGE
    query = (
        sa.select(*image.c, sa.func.sum(schema.LAYER.c.size).label("size"))
        .select_from(image)
        .outerjoin(schema.IMAGE_LAYER, schema.IMAGE_LAYER.c.image == image.c.uuid)
        .outerjoin(schema.LAYER, schema.LAYER.c.uuid == schema.IMAGE_LAYER.c.layer)
        .group_by(*image.c)
        .order_by(image.c.digest, image.c.name, image.c.version)
    )
    return _select(connection, query, image.c.digest, digests)


def layer_places(connection: sa.Connection, hosts_uuids: t.Iterable[str] | None = None) -> dict[str, set[str]]:
    """The digests of the layers that lie on each host, by the host's uuid."""
    place = schema.LAYER_LOCATION
    query = sa.select(place.c.host, schema.LAYER.c.digest).join_from(
        place, schema.LAYER, schema.LAYER.c.uuid == place.c.layer
    )
    places: dict[str, set[str]] = {}
    for row in _select(connection, query, place.c.host, hosts_uuids):
        places.setdefault(row["host"], set()).add(row["digest"])
    return places


def events(connection: sa.Connection, uuid: str) -> list[Row]:
    """What happened to an object, the oldest first: ``time``, ``what``, ``details``."""
    event = schema.EVENT
    query = sa.select(event.c.time, event.c.what, event.c.details).where(event.c.object == uuid).order_by(event.c.id)
    return _select(connection, query)
