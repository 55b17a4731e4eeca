# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writing to the store: the only statements that insert, change and delete rows.

Each function works inside the caller's writing transaction and takes many rows at once.
"""

from __future__ import annotations

import typing as t
import uuid

from ansible_collections.virtuoso.grid.plugins.module_utils._information.store import query, schema
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store.records import NewImage, Values
from ansible_collections.virtuoso.grid.plugins.module_utils._times import now

try:
    import sqlalchemy as sa
except ImportError:
    pass  # schema.SQLALCHEMY_ERROR has the reason

_BATCH = 500


def new_uuid() -> str:
    """A random uuid (RFC 9562, version 4), as text."""
    return str(uuid.uuid4())


def insert(connection: sa.Connection, table: sa.Table, rows: t.Sequence[Values]) -> None:
    """Add rows that all have the same columns."""
    if rows:
        connection.execute(table.insert(), [dict(row) for row in rows])


def add_objects(connection: sa.Connection, kind: str, rows: t.Sequence[Values]) -> None:
    """Create the root rows of new objects; each row has ``uuid``."""
    insert(connection, schema.OBJECT, [{"uuid": row["uuid"], "kind": kind} for row in rows])


def update(connection: sa.Connection, table: sa.Table, uuid: str, values: Values) -> None:
    """Change columns of the row with this ``uuid``."""
    if values:
        connection.execute(table.update().where(table.c.uuid == uuid).values(dict(values)))


def ensure_sites(connection: sa.Connection, names: t.Iterable[str | None]) -> dict[str, str]:
    """uuid of each site by name; missing ones are created."""
    known = query.sites(connection)
    rows = [
        {"uuid": new_uuid(), "name": name} for name in sorted({name for name in names if name}) if name not in known
    ]
    add_objects(connection, "site", rows)
    insert(connection, schema.SITE, rows)
    return {**known, **{row["name"]: row["uuid"] for row in rows}}


def ensure_networks(connection: sa.Connection, names: t.Iterable[str | None]) -> dict[str, str]:
    """uuid of each network by name; missing ones are created."""
    known = query.networks(connection)
    rows = [
        {"uuid": new_uuid(), "name": name} for name in sorted({name for name in names if name}) if name not in known
    ]
    add_objects(connection, "network", rows)
    insert(connection, schema.NETWORK, rows)
    return {**known, **{row["name"]: row["uuid"] for row in rows}}


def plug(connection: sa.Connection, plugs: t.Sequence[tuple[str, str, str | None]]) -> None:
    """Put each host on one network, and take it off all others.

    :param plugs: uuid of the host, uuid of the network, MAC address.
    """
    table = schema.INTERFACE
    hosts = [host for host, dummy, dummy_mac in plugs]
    for start in range(0, len(hosts), _BATCH):
        connection.execute(table.delete().where(table.c.host.in_(hosts[start : start + _BATCH])))
    insert(connection, table, [{"host": host, "network": network, "mac": mac} for host, network, mac in plugs])


def add_hosts(connection: sa.Connection, rows: t.Sequence[Values]) -> None:
    """Create hosts; columns that a row leaves out are empty."""
    columns = {column.name: None for column in schema.HOST.c}
    add_objects(connection, "host", rows)
    insert(connection, schema.HOST, [{**columns, "facts": {}, **row} for row in rows])


def ensure_images(connection: sa.Connection, images: t.Iterable[NewImage]) -> dict[str, str]:
    """uuid of each image by digest; missing ones are created, entries without a digest are ignored.

    An image is written as one layer, whose digest names both.
    """
    wanted = {image["digest"]: image for image in images if image.get("digest")}
    known = {row["digest"]: row["uuid"] for row in query.images(connection, wanted)}
    new = {digest: image for digest, image in wanted.items() if digest not in known}
    layers = _ensure_layers(connection, new.values())
    uuids = {digest: new_uuid() for digest in new}
    rows = []
    for digest, image in new.items():
        name, dummy, version = (image.get("name") or "").partition("@")
        rows.append(
            {
                "uuid": uuids[digest],
                "name": name or None,
                "version": version or None,
                "digest": digest,
                "virtual_size": image.get("virtual_size"),
            }
        )
    links = [{"image": uuid, "position": 0, "layer": layers[digest]} for digest, uuid in uuids.items()]
    add_objects(connection, "image", rows)
    insert(connection, schema.IMAGE, rows)
    insert(connection, schema.IMAGE_LAYER, links)
    return {**known, **uuids}


def _ensure_layers(connection: sa.Connection, layers: t.Iterable[NewImage]) -> dict[str, str]:
    """uuid of each layer by digest; missing ones are created, and a size that was not known is filled in."""
    table = schema.LAYER
    known = {row.digest: row.uuid for row in connection.execute(sa.select(table.c.digest, table.c.uuid))}
    new = {}
    for digest, layer in {layer["digest"]: layer for layer in layers}.items():
        if digest not in known:
            new[digest] = {"uuid": new_uuid(), "digest": digest, "size": layer.get("size")}
        elif layer.get("size") is not None:
            unknown = table.update().where(table.c.digest == digest, table.c.size.is_(None))
            connection.execute(unknown.values(size=layer["size"]))
    add_objects(connection, "layer", list(new.values()))
    insert(connection, table, list(new.values()))
    return {**known, **{digest: str(row["uuid"]) for digest, row in new.items()}}


def set_layer_places(connection: sa.Connection, host: str, digests: t.Iterable[str]) -> None:
    """Write that the host has exactly these layers."""
    wanted = set(digests)
    there = query.layer_places(connection, [host]).get(host, set())
    uuid_of = _ensure_layers(connection, [{"digest": digest} for digest in sorted(wanted)])
    gone = [uuid_of[digest] for digest in there - wanted]
    place = schema.LAYER_LOCATION
    for start in range(0, len(gone), _BATCH):
        connection.execute(place.delete().where(place.c.host == host, place.c.layer.in_(gone[start : start + _BATCH])))
    insert(connection, place, [{"layer": uuid_of[digest], "host": host} for digest in sorted(wanted - there)])


def set_constituent(connection: sa.Connection, virtual: str, role: str, constituent: str | None) -> None:
    """Write what a virtual object is made of in this role: one object, or nothing."""
    table = schema.VIRTUALIZATION
    connection.execute(table.delete().where(table.c.virtual == virtual, table.c.role == role))
    if constituent is not None:
        insert(connection, table, [{"virtual": virtual, "constituent": constituent, "role": role}])


def add_futures(connection: sa.Connection, rows: t.Sequence[Values]) -> None:
    """Mark objects as not existing yet; each row has ``uuid``."""
    insert(connection, schema.FUTURES, [{"uuid": row["uuid"]} for row in rows])


def clear_future(connection: sa.Connection, uuid: str) -> None:
    """The object exists from now on."""
    connection.execute(schema.FUTURES.delete().where(schema.FUTURES.c.uuid == uuid))


def delete(connection: sa.Connection, objects: t.Sequence[str]) -> None:
    """Delete objects by uuid and, by cascade, every row that belongs to them."""
    for start in range(0, len(objects), _BATCH):
        batch = list(objects[start : start + _BATCH])
        connection.execute(schema.OBJECT.delete().where(schema.OBJECT.c.uuid.in_(batch)))


def add_events(connection: sa.Connection, events: t.Iterable[tuple[str, str, Values]]) -> None:
    """Write history: uuid of the object, what happened, details."""
    time = now()
    insert(
        connection,
        schema.EVENT,
        [{"object": uuid, "time": time, "what": what, "details": details} for uuid, what, details in events],
    )
