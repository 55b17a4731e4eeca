# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a complete look at a provider tells beside the machines on it: which are gone, what else runs there. Marks,
never deletes."""

from __future__ import annotations

import dataclasses
import datetime
import typing as t
import uuid as uuids

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._information.registration import observations
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store import query, record, schema
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.spec import shorten
from ansible_collections.virtuoso.grid.plugins.module_utils._times import FOREVER

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
    table, now = schema.FOREIGN_DOMAIN, record.now()
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
            record.insert(connection, table, [{"provider": host, "uuid": change.uuid, **values}])


def readmit(connection: sa.Connection, spec: t.Mapping[str, t.Any], seen: Row, provider: str) -> None:
    """Write the reservation of a machine whose order was rebuilt, so that it takes its room before the next deployment
    too. It was admitted once: nothing is asked again. What ended meanwhile is gone.
    :param provider: its uuid."""
    wanted, now = (spec.get("performance") or {}).get("reservation"), record.now()
    if not wanted or wanted.get("to", FOREVER) <= now:
        return
    row = {
        "uuid": record.new_uuid(),
        "machine": seen["uuid"],
        "owner": spec["owner"],
        "provider": provider,
        "cpu_period_us": wanted["period"],
        # Of all its virtual CPUs together
        "cpu_slice_us": wanted["slice"] * spec["vcpus"],
        "memory": wanted.get("memory", spec["memory"]),
        "begin": wanted.get("from", now),
        "end": wanted.get("to", FOREVER),
        "state": "admitted",
        "created": now,
    }
    record.add_objects(connection, "reservation", [row])
    record.insert(connection, schema.RESERVATION, [row])


def read_sample(given: t.Any, objects: t.Mapping[str, str]) -> Row:
    """A row of ``sample``. :param objects: uuids of sites, hosts and machines by name, and by themselves.

    :raises GridError: ``invalid_sample``.
    """

    def bad(msg: str) -> GridError:
        return GridError(
            "invalid_sample",
            msg,
            remedy="Give object, metric and value; peer for what lies between two; time as 2026-11-01T12:00:00Z",
        )

    if not isinstance(given, t.Mapping):
        raise bad(f"{shorten(given)} is not a sample")
    row: Row = {"peer": None}
    for field in ("object", "peer"):
        name = given.get(field)
        if name is None and field == "peer":
            continue
        if not isinstance(name, str) or name not in objects:
            raise bad(f"there is no site, host or machine {shorten(name)}")
        row[field] = objects[name]
    row["metric"] = given.get("metric")
    if not isinstance(row["metric"], str) or not row["metric"].isidentifier() or len(row["metric"]) > 32:
        raise bad(f"{shorten(given.get('metric'))} is not a metric")
    try:
        row["value"] = float(given.get("value"))  # type: ignore[arg-type]
        time = str(given.get("time") or record.now())
        datetime.datetime.strptime(time, "%Y-%m-%dT%H:%M:%SZ")
    except (TypeError, ValueError) as exc:
        raise bad(f"the sample's value or time is wrong: {exc}") from exc
    if not abs(row["value"]) < 1e300:
        raise bad("the sample's value is not a finite number")
    return {**row, "time": time}


def objects_by_name(connection: sa.Connection) -> dict[str, str]:
    """What a sample can be about: uuids of sites and hosts by name, those of hosts too where a site has the name of
    one; and by uuid."""
    found = {**query.sites(connection), **query.host_uuids(connection)}
    sites = query.sites(connection)
    # A site and its only host often have one name: latency lies between sites.
    return {**found, **sites, **{uuid: uuid for uuid in (*found.values(), *sites.values())}}
