# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bringing the store up to what was seen: decided per object against its row (pure), then written."""

from __future__ import annotations

import dataclasses
import functools
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._diff import changed_keys, diff
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._information.registration import (
    domains,
    observations,
    samples,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._information.registration.orders import (
    RESERVED_NAMES,
    shown_name,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store import query, schema, writing
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.spec import Spec, parse_order
from ansible_collections.virtuoso.grid.plugins.module_utils._run import Result, attempt
from ansible_collections.virtuoso.grid.plugins.module_utils._times import FOREVER

if t.TYPE_CHECKING:
    import sqlalchemy as sa

Row = t.Dict[str, t.Any]

_CONNECTION = ("site", "kind", "address", "port", "login", "identity_file", "ssh_args")
_HARDWARE = ("cpus", "memory", "disk")


@dataclasses.dataclass
class Change:
    """What an observation makes of a host's row: the columns that differ, and whatever else is to be written."""

    name: str
    actions: list[str]
    before: Row | None
    after: Row
    uuid: str | None = None
    spec: Spec | None = None
    seen: Row = dataclasses.field(default_factory=dict)

    @property
    def changed(self) -> bool:
        return bool(self.actions)

    def diff(self, kind: str) -> dict[str, str]:
        return diff(f"{kind} {self.name}", self.before, self.after)


def _stable(facts: t.Mapping[str, t.Any] | None) -> Row:
    return {name: value for name, value in (facts or {}).items() if name not in observations.MEASURED}


def decide_host(seen: Row, row: query.Row | None, machines: t.Mapping[str, query.Row]) -> Change:
    """What to write of a provider or home.

    :raises GridError: ``name_taken``, ``no_site``.
    """
    if seen["name"] in machines:
        raise GridError(
            "name_taken",
            "a machine has this name",
            remedy="Give the host another name in the inventory, or retire the machine",
        )
    if not seen.get("site") and not (row and row["site"]):
        raise GridError("no_site", "the host has no site", remedy="Set virtuoso_site for this host in the inventory")
    columns = (*_CONNECTION, *_HARDWARE, "price")
    old = {column: (row or {}).get(column) for column in columns}
    after = {**old, **{column: value for column, value in seen.items() if column in columns}}
    before = None if row is None else {**old, **_stable(row["facts"])}
    new = {**after, **_stable(seen.get("facts", (row or {}).get("facts")))}
    actions = ["register"] if row is None else ["update"] if changed_keys(before, new) else []
    return Change(seen["name"], actions, before, new, (row or {}).get("uuid"), seen=seen)


def _check_copy(seen: Row, row: query.Row) -> None:
    """:raises GridError: ``stale_copy`` for a machine of an older generation on another provider than the one known."""
    if row["provider"] not in (None, seen["provider"]) and seen.get("generation", 0) < (row["generation"] or 0):
        raise GridError(
            "stale_copy",
            f"{seen['provider']} has generation {seen.get('generation', 0)} of the machine, {row['provider']} has generation {row['generation']}",
            remedy=f"Make sure that the copy on {seen['provider']} is stopped, and undefine it there",
            provider=row["provider"],
        )


def decide_machine(
    seen: Row, row: query.Row | None, taken: t.Mapping[str, query.Row], providers: t.Mapping[str, Row]
) -> Change:
    """What to write of a machine that a provider has, or has no more (``absent``).

    :param row: what is known under its uuid; without it the machine and its order are rebuilt from what was seen.
    :param taken: machines and hosts by name.
    :param providers: rows of the known providers by name.
    :raises GridError: ``unknown_provider``, ``name_taken``, ``reserved_name``, ``stale_copy``, and as
        :func:`parse_order`.
    """
    absent = seen["state"] == "absent"
    if absent and (row is None or row["future"]):
        return Change(seen["name"], [], None, {}, (row or {}).get("uuid"))
    if seen["provider"] not in providers:
        raise GridError(
            "unknown_provider",
            f"{seen['provider']} is not registered",
            remedy="Register the provider, in the same task or before",
            provider=seen["provider"],
        )
    spec = None
    if row is None:
        other = taken.get(seen["name"])
        if other is not None:
            raise GridError(
                "name_taken",
                f"{seen['provider']} has a machine {seen['uuid']} of this name, but the store knows another {other['kind']} of this name",
                remedy="Cancel the order of that name (state=absent), or undefine the machine on the provider",
                uuid=seen["uuid"],
            )
        if seen["name"] in RESERVED_NAMES:
            raise GridError(
                "reserved_name",
                f"{seen['name']} has a meaning of its own in an inventory",
                remedy="Undefine the machine on the provider",
            )
        spec = parse_order(observations.wish_of(seen))
    else:
        _check_copy(seen, row)
    before, after = _machine_states(seen, row, providers)
    actions = ["rebuild"] if row is None else []
    if row is not None and row["future"]:
        actions.append("exist")
    elif row is not None and row["provider"] != seen["provider"]:
        actions.append("move")
    if row is not None and row["missing"] and not absent:
        actions.append("return")
    if not actions and changed_keys(_compared(before), _compared(after)):
        actions.append("update")
    return Change(seen["name"], actions, before, after, (row or {}).get("uuid"), spec, seen)


def _compared(state: Row | None) -> Row | None:
    """What counts as a change. Who told the address doesn't: a guest's agent comes up later than its lease."""
    if state is None:
        return None
    return {**state, "facts": {key: value for key, value in (state["facts"] or {}).items() if key != "address_source"}}


def _machine_states(seen: Row, row: query.Row | None, providers: t.Mapping[str, Row]) -> tuple[Row | None, Row]:
    """The machine's columns before and after. What isn't told stays; so do the last known addresses when none are seen."""
    old_facts = dict((row or {}).get("facts") or {})
    facts = {**old_facts, **seen["facts"]}
    if not facts.get("addresses") and old_facts.get("addresses"):
        facts["addresses"], facts["address_source"] = old_facts["addresses"], old_facts.get("address_source")
    columns = ("state", "generation", *_HARDWARE)
    after = {column: seen.get(column, (row or {}).get(column)) for column in columns}
    after.update(
        provider=seen["provider"],
        site=providers[seen["provider"]].get("site"),
        address=next(iter(facts.get("addresses") or ()), None),
        facts=facts,
        future=False,
    )
    return (None if row is None else {column: row[column] for column in after}), after


def newest_copies(machines: t.Sequence[Row], rows: t.Mapping[str, query.Row]) -> dict[str, str]:
    """The provider of the copy that counts, for each uuid seen more than once: newest, running, where it is known to
    be."""
    copies: dict[str, list[Row]] = {}
    for seen in machines:
        copies.setdefault(seen["uuid"], []).append(seen)

    def rank(seen: Row) -> tuple[t.Any, ...]:
        known = rows.get(seen["uuid"], {}).get("provider")
        return (
            seen["state"] != "absent",
            seen.get("generation", 0),
            seen["state"] == "running",
            seen["provider"] == known,
            seen["provider"],
        )

    return {uuid: max(found, key=rank)["provider"] for uuid, found in copies.items() if len(found) > 1}


def _readmit(connection: sa.Connection, spec: t.Mapping[str, t.Any], seen: Row, provider: str) -> None:
    """Write the reservation of a machine whose order was rebuilt, so that it takes its room before the next deployment
    too. It was admitted once: nothing is asked again. What ended meanwhile is gone.
    :param provider: its uuid."""
    wanted, now = (spec.get("performance") or {}).get("reservation"), writing.now()
    if not wanted or wanted.get("to", FOREVER) <= now:
        return
    row = {
        "uuid": writing.new_uuid(),
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
    writing.add_objects(connection, "reservation", [row])
    writing.insert(connection, schema.RESERVATION, [row])


class Registration:
    """One run of the module: decides all within the caller's transaction, then writes it unless checking."""

    def __init__(self, connection: sa.Connection) -> None:
        self.connection = connection
        self.machines = {row["uuid"]: row for row in query.machines(connection)}
        self.hosts = {row["name"]: row for row in query.hosts(connection)}
        self.host_changes: list[Change] = []
        self.machine_changes: list[Change] = []
        self.doomed: list[str] = []
        self.vanished: list[query.Row] = []
        self.foreign: list[domains.Foreign] = []
        self.samples: list[Row] = []

    def see_hosts(self, given: t.Sequence[t.Any]) -> list[Result]:
        """Decide on providers and homes."""
        by_name = {row["name"]: row for row in self.machines.values()}

        def decide(entry: t.Any) -> Result:
            seen = observations.read_host(entry)
            change = decide_host(seen, self.hosts.get(seen["name"]), by_name)
            self.host_changes.append(change)
            return {"changed": change.changed, "actions": change.actions}

        return [
            attempt(
                shown_name(entry, position), functools.partial(decide, entry), kind="host", tried="register the host"
            )
            for position, entry in enumerate(given, 1)
        ]

    def see_machines(self, given: t.Sequence[t.Any]) -> list[Result]:
        """Decide on machines; those that are not of this collection are passed over."""
        entries = [entry for entry in given if not (isinstance(entry, t.Mapping) and entry.get("foreign"))]
        read: dict[int, Row] = {}

        def look(position: int, entry: t.Any) -> Result:
            read[position] = observations.read_machine(entry)
            return {}

        results = [
            attempt(
                shown_name(entry, position),
                functools.partial(look, position, entry),
                kind="machine",
                tried="register the machine",
            )
            for position, entry in enumerate(entries, 1)
        ]
        newest = newest_copies(list(read.values()), self.machines)
        providers = {**self.hosts, **{change.name: change.after for change in self.host_changes}}
        taken = {row["name"]: row for row in (*self.machines.values(), *self.hosts.values())}
        for position, seen in read.items():
            counts = newest.get(seen["uuid"]) or seen["provider"]
            decide = functools.partial(self._see_machine, seen, counts, taken, providers)
            results[position - 1] = attempt(seen["name"], decide, kind="machine", tried="register the machine")
        return results

    def _see_machine(
        self, seen: Row, newest: str, taken: dict[str, query.Row], providers: t.Mapping[str, Row]
    ) -> Result:
        if seen["state"] != "absent" and seen["provider"] != newest:
            raise GridError(
                "several_copies",
                f"the machine is defined on {newest} and on {seen['provider']}",
                remedy="Find out which one is right, and undefine it on the other",
                providers=sorted({newest, seen["provider"]}),
            )
        if seen["state"] == "absent" and seen["provider"] != self.machines.get(seen["uuid"], {}).get("provider"):
            return {"uuid": seen["uuid"], "actions": []}
        change = decide_machine(seen, self.machines.get(seen["uuid"]), taken, providers)
        taken.setdefault(seen["name"], {"kind": "machine"})
        self.machine_changes.append(change)
        return {"uuid": seen["uuid"], "changed": change.changed, "actions": change.actions}

    def see_all(self, complete: t.Sequence[str], given: t.Sequence[t.Any]) -> dict[str, list[Result]]:
        """Decide on what a complete look at these providers didn't show, and on what it showed that is not the grid's.

        :param given: the same machines as for :meth:`see_machines`.
        """
        seen = {
            str(entry.get("uuid")).lower()
            for entry in given
            if isinstance(entry, t.Mapping) and not entry.get("foreign")
        }
        self.vanished = domains.vanished(self.machines.values(), set(complete), seen)
        known = query.foreign_domains(self.connection)
        self.foreign = domains.decide_foreign(given, known, set(complete), {*self.machines, *seen})
        gone = [
            {
                "name": row["name"],
                "uuid": row["uuid"],
                "provider": row["provider"],
                "changed": True,
                "actions": ["vanish"],
            }
            for row in self.vanished
        ]
        return {"vanished": gone, "foreign": [change.result() for change in self.foreign]}

    def see_samples(self, given: t.Sequence[t.Any]) -> list[Result]:
        """Decide on measurements. They are kept beside each other and change nothing."""
        objects = samples.objects_by_name(self.connection) if given else {}

        def decide(entry: t.Any) -> Result:
            self.samples.append(samples.read_sample(entry, objects))
            return {}

        return [
            attempt(
                f"sample {position}", functools.partial(decide, entry), kind="measurement", tried="record the sample"
            )
            for position, entry in enumerate(given, 1)
        ]

    def forget(self, gone: t.Sequence[str]) -> list[Result]:
        """Decide on machines that were retired: all their rows go. What is no machine stays."""
        self.doomed = [uuid for uuid in dict.fromkeys(gone) if uuid in self.machines]
        return [
            {
                "name": self.machines[uuid]["name"] if uuid in self.machines else uuid,
                "uuid": uuid,
                "changed": uuid in self.machines,
                "actions": ["forget"] if uuid in self.machines else [],
            }
            for uuid in gone
        ]

    def diffs(self) -> list[dict[str, str]]:
        """For ``--diff``."""
        gone = [
            diff(f"machine {self.machines[uuid]['name']}", {"uuid": uuid, "owner": self.machines[uuid]["owner"]}, None)
            for uuid in self.doomed
        ]
        hosts = [change.diff("host") for change in self.host_changes if change.changed]
        lost = [diff(f"machine {row['name']}", {"state": row["state"]}, {"state": "vanished"}) for row in self.vanished]
        return hosts + [change.diff("machine") for change in self.machine_changes if change.changed] + lost + gone

    def write(self) -> None:
        """Carry out what was decided."""
        sites = writing.ensure_sites(self.connection, [change.after.get("site") for change in self.host_changes])
        hosts = {name: row["uuid"] for name, row in self.hosts.items()}
        for change in self.host_changes:
            hosts[change.name] = self._write_host(change, sites)
        images = [change.after["facts"].get("image") or {} for change in self.machine_changes if change.seen]
        image_uuids = writing.ensure_images(self.connection, images)
        for change in self.machine_changes:
            if change.seen:
                self._write_machine(change, sites, hosts, image_uuids)
        self._write_plugs()
        time = writing.now()
        for row in self.vanished:
            writing.update(self.connection, schema.HOST, row["uuid"], {"state": "vanished", "missing": time})
        writing.add_events(
            self.connection, [(row["uuid"], "vanished", {"provider": row["provider"]}) for row in self.vanished]
        )
        domains.write_foreign(self.connection, self.foreign, hosts)
        writing.insert(self.connection, schema.SAMPLE, self.samples)
        writing.delete(self.connection, self.doomed)

    def _write_plugs(self) -> None:
        """The networks of the machines, where they tell one that isn't known yet."""
        told = {
            change.seen["uuid"]: (change.after["facts"].get("network"), change.after["facts"].get("mac"))
            for change in self.machine_changes
            if change.seen and change.after["facts"].get("network")
        }
        known = query.plugs(self.connection, told)
        new = {uuid: plug for uuid, plug in told.items() if known.get(uuid) != plug}
        networks = writing.ensure_networks(self.connection, [name for name, dummy in new.values()]) if new else {}
        writing.plug(self.connection, [(uuid, networks[name], mac) for uuid, (name, mac) in new.items()])

    def _write_host(self, change: Change, sites: t.Mapping[str, str]) -> str:
        columns = {column: change.after.get(column) for column in (*_CONNECTION, *_HARDWARE, "price")}
        values = {**columns, "site": sites.get(change.after.get("site") or ""), "seen": writing.now()}
        if "facts" in change.seen:
            values["facts"] = change.seen["facts"]
            values.update(observations.read_measured(change.seen["facts"]))
        uuid = change.uuid
        if uuid is None:
            uuid = writing.new_uuid()
            writing.add_hosts(self.connection, [{"uuid": uuid, "name": change.name, **values}])
        else:
            writing.update(self.connection, schema.HOST, uuid, values)
        if "images" in change.seen.get("facts", {}):
            writing.set_layer_places(self.connection, uuid, observations.read_layers(change.seen["facts"]))
        here, time = sites.get(change.after.get("site") or ""), writing.now()
        self.samples += [
            {"object": here, "peer": sites[site], "metric": "latency", "time": time, "value": seconds}
            for site, seconds in observations.read_latencies(change.seen.get("facts", {})).items()
            if here and site in sites and sites[site] != here
        ]
        details = {"fields": changed_keys(change.before, change.after)}
        writing.add_events(self.connection, [(uuid, action, details) for action in change.actions])
        return uuid

    def _write_machine(
        self, change: Change, sites: t.Mapping[str, str], hosts: t.Mapping[str, str], images: t.Mapping[str, str]
    ) -> None:
        seen, after, time = change.seen, change.after, writing.now()
        row = self.machines.get(seen["uuid"])
        columns = ("state", "generation", "address", "facts", *_HARDWARE)
        missing = ((row or {}).get("missing") or time) if after["state"] == "absent" else None
        values = {column: after[column] for column in columns}
        values.update(site=sites.get(after["site"] or ""), seen=time, missing=missing)
        if row is None:
            writing.add_hosts(
                self.connection, [{"uuid": seen["uuid"], "name": seen["name"], "kind": "machine", **values}]
            )
            spec = t.cast(Spec, change.spec)
            order = {
                "uuid": seen["uuid"],
                "owner": spec["owner"],
                "spec": spec,
                "generation": after["generation"] or 1,
                "created": time,
                "updated": time,
            }
            writing.insert(self.connection, schema.ORDERS, [order])
            _readmit(self.connection, spec, seen, hosts[seen["provider"]])
        else:
            writing.update(self.connection, schema.HOST, seen["uuid"], values)
            if row["future"]:
                writing.clear_future(self.connection, seen["uuid"])
        if row is None or row["provider"] != seen["provider"]:
            writing.set_constituent(self.connection, seen["uuid"], "provider", hosts[seen["provider"]])
        image = images.get((after["facts"].get("image") or {}).get("digest") or "")
        if image and (row is None or row["image_uuid"] != image):
            writing.set_constituent(self.connection, seen["uuid"], "image", image)
        fields = [field for field in changed_keys(change.before, after) if field != "facts"]
        facts = changed_keys((change.before or {}).get("facts"), after["facts"])
        details = {"state": after["state"], "provider": seen["provider"], "fields": [*fields, *facts]}
        writing.add_events(self.connection, [(seen["uuid"], action, details) for action in change.actions])
