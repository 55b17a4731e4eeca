# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a complete look at a provider tells beside the machines on it: which are gone, what else runs there. Marks,
never deletes."""

from __future__ import annotations

import dataclasses
import typing as t
import uuid as uuids

from ansible_collections.virtuoso.grid.plugins.module_utils._information.registration import observations
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store import query, schema, writing

if t.TYPE_CHECKING:
    import sqlalchemy as sa

Row = t.Dict[str, t.Any]


def vanished(machines: t.Iterable[query.Row], complete: t.Container[str], seen: t.Container[str]) -> list[query.Row]:
    """Machines that should be on a provider that was looked at completely, and were seen nowhere."""
    return [
        row
        for row in machines
        if row["provider"] in complete
        and not row["future"]
        and row["uuid"] not in seen
        and row["state"] not in ("vanished", "absent")
    ]


@dataclasses.dataclass(frozen=True)
class Foreign:
    """A domain that is not the grid's: ``actions`` is what becomes of its row."""

    provider: str
    uuid: str
    name: str
    state: str | None
    actions: tuple[str, ...]

    def result(self) -> Row:
        """The return value."""
        shown = {"provider": self.provider, "uuid": self.uuid, "name": self.name, "state": self.state}
        return {**shown, "changed": bool(self.actions), "actions": list(self.actions)}


def read_foreign(given: t.Any) -> tuple[str, str, str, str | None] | None:
    """Provider, uuid, name and state of a foreign domain as machine_info tells it; ``None`` for what is none or makes
    no sense."""
    if not isinstance(given, t.Mapping) or not given.get("foreign"):
        return None
    provider, name, state = given.get("provider"), given.get("name"), given.get("state")
    try:
        uuid = str(uuids.UUID(str(given.get("uuid"))))
    except ValueError:
        return None
    if not isinstance(provider, str) or not isinstance(name, str):
        return None
    shown = "".join(character if character.isprintable() else "?" for character in name)[:253]
    return provider, uuid, shown, state if state in observations.STATES else None


def decide_foreign(
    given: t.Iterable[t.Any],
    known: t.Mapping[tuple[str, str], query.Row],
    complete: t.Collection[str],
    machines: t.Container[str],
) -> list[Foreign]:
    """What to write of foreign domains.
    :param known: rows by provider and uuid.
    :param machines: uuids that are the grid's own."""
    found: dict[tuple[str, str], Foreign] = {}
    for entry in map(read_foreign, given):
        if entry is None:
            continue
        provider, uuid, name, state = entry
        row = known.get((provider, uuid))
        actions: tuple[str, ...] = ()
        if row is None or row["missing"]:
            actions = ("appear",)
        elif (row["name"], row["state"]) != (name, state):
            actions = ("update",)
        found[provider, uuid] = Foreign(provider, uuid, name, state, actions)
    for (provider, uuid), row in known.items():
        if provider in complete and (provider, uuid) not in found and not row["missing"]:
            # What was foreign may have become a machine of the grid; it hasn't vanished then, but it is no foreign
            # domain any more.
            found[provider, uuid] = Foreign(
                provider, uuid, row["name"], row["state"], ("own" if uuid in machines else "vanish",)
            )
    return list(found.values())


def write_foreign(connection: sa.Connection, changes: t.Iterable[Foreign], hosts: t.Mapping[str, str]) -> None:
    """Carry out what was decided. :param hosts: uuids of providers by name."""
    table, now = schema.FOREIGN_DOMAIN, writing.now()
    for change in changes:
        host = hosts.get(change.provider)
        if host is None:
            continue
        mine = (table.c.provider == host, table.c.uuid == change.uuid)
        values = {"name": change.name, "state": change.state, "seen": now, "missing": None}
        if change.actions == ("own",):
            connection.execute(table.delete().where(*mine))
        elif change.actions == ("vanish",):
            connection.execute(table.update().where(*mine).values(missing=now))
        elif not connection.execute(table.update().where(*mine).values(**values)).rowcount:
            writing.insert(connection, table, [{"provider": host, "uuid": change.uuid, **values}])
