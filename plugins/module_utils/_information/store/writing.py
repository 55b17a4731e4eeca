# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is written to the store. Each function works inside the caller's writing transaction, and takes many rows at
once."""

from __future__ import annotations

import datetime
import typing as t
import uuid as uuids

from ansible_collections.virtuoso.grid.plugins.module_utils._information.store import query, schema

try:
    import sqlalchemy as sa
except ImportError:
    pass  # schema.SQLALCHEMY_ERROR tells

Row = t.Dict[str, t.Any]

_BATCH = 500


def now() -> str:
    """The time as the store writes it."""
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def new_uuid() -> str:
    """A random uuid (RFC 9562, version 4), as text."""
    return str(uuids.uuid4())


def insert(connection: sa.Connection, table: sa.Table, rows: t.Sequence[Row]) -> None:
    """Add rows that all have the same columns."""
    if rows:
        connection.execute(table.insert(), list(rows))


def add_objects(connection: sa.Connection, kind: str, rows: t.Sequence[Row]) -> None:
    """Make the root rows of new objects; each row has ``uuid``."""
    insert(connection, schema.OBJECT, [{"uuid": row["uuid"], "kind": kind} for row in rows])


def update(connection: sa.Connection, table: sa.Table, uuid: str, values: Row) -> None:
    """Change columns of the row with this ``uuid``."""
    if values:
        connection.execute(table.update().where(table.c.uuid == uuid).values(**values))


def ensure_sites(connection: sa.Connection, names: t.Iterable[str | None]) -> dict[str, str]:
    """uuid of each site by name; those that are not there yet are made."""
    known = query.sites(connection)
    rows = [
        {"uuid": new_uuid(), "name": name} for name in sorted({name for name in names if name}) if name not in known
    ]
    add_objects(connection, "site", rows)
    insert(connection, schema.SITE, rows)
    return {**known, **{row["name"]: row["uuid"] for row in rows}}


def ensure_networks(connection: sa.Connection, names: t.Iterable[str | None]) -> dict[str, str]:
    """uuid of each network by name; those that are not there yet are made."""
    known = query.networks(connection)
    rows = [
        {"uuid": new_uuid(), "name": name} for name in sorted({name for name in names if name}) if name not in known
    ]
    add_objects(connection, "network", rows)
    insert(connection, schema.NETWORK, rows)
    return {**known, **{row["name"]: row["uuid"] for row in rows}}


def plug(connection: sa.Connection, plugs: t.Sequence[tuple[str, str, str | None]]) -> None:
    """Each host is on this network, and for now on no other: (uuid of the host, uuid of the network, MAC address)."""
    table = schema.INTERFACE
    hosts = [host for host, dummy, dummy_mac in plugs]
    for start in range(0, len(hosts), _BATCH):
        connection.execute(table.delete().where(table.c.host.in_(hosts[start : start + _BATCH])))
    insert(connection, table, [{"host": host, "network": network, "mac": mac} for host, network, mac in plugs])


def add_hosts(connection: sa.Connection, rows: t.Sequence[Row]) -> None:
    """Make hosts; columns that a row leaves out are empty."""
    columns = {column.name: None for column in schema.HOST.c}
    add_objects(connection, "host", rows)
    insert(connection, schema.HOST, [{**columns, "facts": {}, **row} for row in rows])


def ensure_images(connection: sa.Connection, images: t.Iterable[Row]) -> dict[str, str]:
    """uuid of each image by digest; ``images`` have ``digest`` and, where known, ``name`` (name@version), ``size``,
    ``virtual_size``.

    For now an image is one layer, whose digest names both.
    """
    wanted = {image["digest"]: image for image in images if image.get("digest")}
    known = {row["digest"]: row["uuid"] for row in query.images(connection, wanted)}
    new = [image for digest, image in wanted.items() if digest not in known]
    _ensure_layers(connection, new)
    rows, links = [], []
    layers = _layer_uuids(connection)
    for image in new:
        name, dummy, version = (image.get("name") or "").partition("@")
        uuid = new_uuid()
        rows.append(
            {
                "uuid": uuid,
                "name": name or None,
                "version": version or None,
                "digest": image["digest"],
                "virtual_size": image.get("virtual_size"),
            }
        )
        links.append({"image": uuid, "position": 0, "layer": layers[image["digest"]]})
    add_objects(connection, "image", rows)
    insert(connection, schema.IMAGE, rows)
    insert(connection, schema.IMAGE_LAYER, links)
    return {**known, **{row["digest"]: row["uuid"] for row in rows}}


def _layer_uuids(connection: sa.Connection) -> dict[str, str]:
    return {row.digest: row.uuid for row in connection.execute(sa.select(schema.LAYER.c.digest, schema.LAYER.c.uuid))}


def _ensure_layers(connection: sa.Connection, layers: t.Iterable[Row]) -> dict[str, str]:
    """uuid of each layer by digest; of a layer whose size was not known the size is filled in."""
    known = _layer_uuids(connection)
    rows = []
    for digest, layer in {layer["digest"]: layer for layer in layers}.items():
        if digest not in known:
            rows.append({"uuid": new_uuid(), "digest": digest, "size": layer.get("size")})
        elif layer.get("size") is not None:
            connection.execute(
                schema.LAYER.update()
                .where(schema.LAYER.c.digest == digest, schema.LAYER.c.size.is_(None))
                .values(size=layer["size"])
            )
    add_objects(connection, "layer", rows)
    insert(connection, schema.LAYER, rows)
    return {**known, **{row["digest"]: row["uuid"] for row in rows}}


def set_layer_places(connection: sa.Connection, host: str, digests: t.Iterable[str]) -> None:
    """These layers, and no others, lie on the host."""
    wanted = set(digests)
    there = query.layer_places(connection, [host]).get(host, set())
    uuid_of = _ensure_layers(connection, [{"digest": digest} for digest in sorted(wanted)])
    gone = [uuid_of[digest] for digest in there - wanted]
    place = schema.LAYER_LOCATION
    for start in range(0, len(gone), _BATCH):
        connection.execute(place.delete().where(place.c.host == host, place.c.layer.in_(gone[start : start + _BATCH])))
    insert(connection, place, [{"layer": uuid_of[digest], "host": host} for digest in sorted(wanted - there)])


def set_constituent(connection: sa.Connection, virtual: str, role: str, constituent: str | None) -> None:
    """What a virtual object is made of in this role: one object, or nothing any more."""
    table = schema.VIRTUALIZATION
    connection.execute(table.delete().where(table.c.virtual == virtual, table.c.role == role))
    if constituent is not None:
        insert(connection, table, [{"virtual": virtual, "constituent": constituent, "role": role}])


def add_futures(connection: sa.Connection, rows: t.Sequence[Row]) -> None:
    """Mark objects as not there yet; each row has ``uuid``."""
    insert(connection, schema.FUTURES, [{"uuid": row["uuid"]} for row in rows])


def clear_future(connection: sa.Connection, uuid: str) -> None:
    """The object is there from now on."""
    connection.execute(schema.FUTURES.delete().where(schema.FUTURES.c.uuid == uuid))


def delete(connection: sa.Connection, doomed: t.Sequence[str]) -> None:
    """Remove objects and, by cascade, every row that belongs to them."""
    for start in range(0, len(doomed), _BATCH):
        connection.execute(schema.OBJECT.delete().where(schema.OBJECT.c.uuid.in_(list(doomed[start : start + _BATCH]))))


def add_events(connection: sa.Connection, events: t.Iterable[tuple[str, str, Row]]) -> None:
    """Write history: (uuid of the object, what happened, details)."""
    time = now()
    insert(
        connection,
        schema.EVENT,
        [{"object": uuid, "time": time, "what": what, "details": details} for uuid, what, details in events],
    )
