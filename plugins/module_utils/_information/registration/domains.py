# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Machines that vanished and domains that are not the grid's, as a complete look at a provider shows them.

They are marked in the store, never deleted.
"""

from __future__ import annotations

import dataclasses
import typing as t
import uuid as uuids

from ansible_collections.virtuoso.grid.plugins.module_utils._information.registration import observations
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store import schema, writing
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store.records import (
    ForeignDomainRow,
    MachineRow,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._run import Result

if t.TYPE_CHECKING:
    import sqlalchemy as sa


def vanished(machines: t.Iterable[MachineRow], complete: t.Container[str], seen: t.Container[str]) -> list[MachineRow]:
    """Machines that should be on a provider that was looked at completely, and were seen nowhere.

    :param complete: names of these providers.
    :param seen: uuids of the machines that were seen.
    """
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
    """A domain that is not the grid's, and what becomes of its row."""

    provider: str  # name
    uuid: str
    name: str
    state: str | None
    actions: tuple[str, ...] = ()  # one of appear, update, own, vanish; or none

    def result(self) -> Result:
        """The return value."""
        shown = {"provider": self.provider, "uuid": self.uuid, "name": self.name, "state": self.state}
        return {**shown, "changed": bool(self.actions), "actions": list(self.actions)}


def read_foreign(given: object) -> Foreign | None:
    """A foreign domain as ``machine_info`` reports it; ``None`` for anything else."""
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
    return Foreign(provider, uuid, shown, state if state in observations.STATES else None)


def decide_foreign(
    given: t.Iterable[object],
    known: t.Mapping[tuple[str, str], ForeignDomainRow],
    complete: t.Collection[str],
    machines: t.Container[str],
) -> list[Foreign]:
    """What to write of foreign domains.

    :param known: rows by the name of the provider and uuid.
    :param complete: names of the providers that were looked at completely.
    :param machines: uuids of the grid's own machines.
    """
    found: dict[tuple[str, str], Foreign] = {}
    for domain in filter(None, map(read_foreign, given)):
        row = known.get((domain.provider, domain.uuid))
        actions: tuple[str, ...] = ()
        if row is None or row["missing"]:
            actions = ("appear",)
        elif (row["name"], row["state"]) != (domain.name, domain.state):
            actions = ("update",)
        found[domain.provider, domain.uuid] = dataclasses.replace(domain, actions=actions)
    for (provider, uuid), row in known.items():
        if provider in complete and (provider, uuid) not in found and not row["missing"]:
            # A foreign domain that became a machine of the grid has not vanished, but it is not foreign any more.
            action = "own" if uuid in machines else "vanish"
            found[provider, uuid] = Foreign(provider, uuid, row["name"], row["state"], (action,))
    return list(found.values())


def write_foreign(connection: sa.Connection, changes: t.Iterable[Foreign], hosts: t.Mapping[str, str]) -> None:
    """Write what was decided.

    :param hosts: uuids of providers by name.
    """
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
