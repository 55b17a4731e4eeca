# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the store knows when machines are placed: machines, expired holds, reservations and quotas, read at once."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._information.store import query, schema
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store.records import (
    ImageRow,
    MachineRow,
    ReservationRow,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.board import Past, Quota
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.inputs import read_placed
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.model import Slot, Use
from ansible_collections.virtuoso.grid.plugins.module_utils._times import before

try:
    import sqlalchemy as sa
except ImportError:
    pass  # schema.SQLALCHEMY_ERROR has the reason

PLACED = "placed"
"""The event at the beginning of a hold."""


def _seen_use(row: MachineRow) -> Use:
    """What the machine took when it was last seen, or what was ordered for a future."""
    return Use(row["cpus"] or 0, row["memory"] or 0, row["disk"] or 0)


def _held_use(row: MachineRow, images: t.Mapping[str, ImageRow]) -> Use:
    """The most of what the machine takes now and what it takes once its order is carried out.

    :param images: by uuid.
    """
    spec, image = row["spec"], images.get(row["image_uuid"] or "")
    return Use(
        max(row["cpus"] or 0, (spec and spec.get("vcpus")) or 0),
        max(row["memory"] or 0, (spec and spec.get("memory")) or 0),
        max(row["disk"] or 0, (spec and spec.get("disk")) or 0),
        image["digest"] if image else None,
        (image["size"] or 0) if image else 0,
    )


@dataclasses.dataclass(frozen=True)
class Known:
    """One state of the store."""

    rows: t.Mapping[str, MachineRow]  # by uuid
    uses: t.Mapping[str, Use]  # what each machine takes, by uuid
    expired: frozenset[str]  # uuids of futures whose hold has expired
    reservations: t.Sequence[ReservationRow]
    quotas: t.Mapping[str, Quota]  # by owner

    def past(self, wanted: t.Collection[str]) -> Past:
        """What the solver needs to know.

        :param wanted: uuids of the machines to be placed now.
        """
        held: dict[str, dict[str, Use]] = {}
        others = []
        for uuid, row in self.rows.items():
            if row["provider"] and uuid not in self.expired:
                held.setdefault(row["provider"], {})[uuid] = self.uses[uuid]
                if uuid not in wanted:
                    others.append(read_placed(row, self.uses[uuid]))
        slots: dict[str, list[Slot]] = {}
        for reservation in self.reservations:
            if reservation["machine"] not in self.expired:
                slots.setdefault(reservation["provider"], []).append(slot_of_row(reservation))
        stored = {uuid: _seen_use(row) for uuid, row in self.rows.items() if not row["future"]}
        return Past(held, stored, others, slots, self.quotas)

    def begun(self, time: str) -> t.Callable[[str], str]:
        """The function that tells when a machine's reservation begins: when it did, or else at ``time``."""
        begins = {row["machine"]: row["begin"] for row in self.reservations if row["machine"]}
        return lambda key: begins.get(key, time)


def slot_of_row(row: ReservationRow) -> Slot:
    """The slot of a reservation in the store."""
    return Slot(
        row["machine"],
        row["owner"],
        row["cpu_period_us"] or 0,
        row["cpu_slice_us"] or 0,
        row["memory"] or 0,
        row["begin"],
        row["end"],
    )


def reservations(connection: sa.Connection, since: str) -> list[ReservationRow]:
    """The admitted reservations that end after ``since``, ordered by their beginning."""
    table, provider = schema.RESERVATION, schema.HOST.alias("on")
    columns = [column for column in table.c if column.name != "provider"]
    wanted = (
        sa.select(*columns, provider.c.name.label("provider"), provider.c.uuid.label("provider_uuid"))
        .join_from(table, provider, provider.c.uuid == table.c.provider)
        .where(table.c.end > since, table.c.state == "admitted")
        .order_by(table.c.begin, table.c.uuid)
    )
    return [t.cast(ReservationRow, dict(row)) for row in connection.execute(wanted).mappings()]


def quotas(connection: sa.Connection) -> dict[str, Quota]:
    """The quota of each owner."""
    rows = connection.execute(sa.select(schema.QUOTA).order_by(schema.QUOTA.c.owner)).mappings()
    return {row["owner"]: Quota(row["vcpus"], row["memory"], row["disk"], row["machines"]) for row in rows}


def _expired(connection: sa.Connection, hold: int, now: str) -> frozenset[str]:
    """The uuids of futures whose room has been held for longer than ``hold`` seconds."""
    event, futures = schema.EVENT, schema.FUTURES
    latest = sa.func.max(event.c.time)
    query_ = (
        sa.select(event.c.object)
        .join_from(event, futures, futures.c.uuid == event.c.object)
        .where(event.c.what == PLACED)
        .group_by(event.c.object)
        .having(latest <= before(hold, now))
    )
    return frozenset(row.object for row in connection.execute(query_))


def read_known(connection: sa.Connection, *, hold: int, now: str) -> Known:
    """Read all that placement needs.

    :param hold: seconds for which room is held for a future.
    :param now: reservations that ended before are left out.
    """
    rows = {row["uuid"]: row for row in query.machines(connection)}
    images = {row["uuid"]: row for row in query.images(connection)}
    uses = {uuid: _held_use(row, images) for uuid, row in rows.items()}
    return Known(rows, uses, _expired(connection, hold, now), reservations(connection, now), quotas(connection))
