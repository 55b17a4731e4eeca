# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Registration: what was seen of hosts and machines, compared with their rows (pure), then written."""

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
from ansible_collections.virtuoso.grid.plugins.module_utils._information.registration.observations import (
    SeenHost,
    SeenMachine,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._information.registration.orders import (
    RESERVED_NAMES,
    check_inventory,
    shown_name,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store import query, schema, writing
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store.records import (
    HostColumns,
    HostRow,
    MachineFacts,
    MachineRow,
    NewImage,
    SampleRow,
    Values,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.spec import Spec, parse_order
from ansible_collections.virtuoso.grid.plugins.module_utils._run import Result, attempt
from ansible_collections.virtuoso.grid.plugins.module_utils._times import FOREVER

if t.TYPE_CHECKING:
    import sqlalchemy as sa

_HOST_COLUMNS = (
    *("site", "kind", "address", "port", "login", "identity_file", "ssh_args"),
    *("cpus", "memory", "disk", "price"),
)


@dataclasses.dataclass
class HostChange:
    """What becomes of the row of a provider or home.

    ``before`` and ``after`` are the columns that count as a change, with the facts that stay the same from one look to
    the next; ``before`` is ``None`` for a new host.
    """

    name: str
    actions: list[str]  # register or update, or none
    before: Values | None
    after: Values
    site: str | None  # name
    uuid: str | None
    seen: SeenHost

    def diff(self) -> dict[str, str]:
        """For ``--diff``."""
        return diff(f"host {self.name}", self.before, self.after)


class MachineState(t.TypedDict):
    """What counts as a change of a machine."""

    state: str | None
    generation: int | None
    cpus: int | None
    memory: int | None  # bytes
    disk: int | None  # bytes
    provider: str | None  # name
    site: str | None  # name
    address: str | None
    facts: MachineFacts
    future: bool


@dataclasses.dataclass
class MachineChange:
    """What becomes of the row of a machine; ``before`` is ``None`` for one that the store doesn't know."""

    seen: SeenMachine
    actions: list[str]  # exist, move, update, rebuild, return; or none
    before: MachineState | None
    after: MachineState
    spec: Spec | None = None  # the order, where it has to be rebuilt

    def diff(self) -> dict[str, str]:
        """For ``--diff``."""
        return diff(f"machine {self.seen['name']}", self.before, self.after)


class Taken(t.NamedTuple):
    """A name that is in use, and what has it."""

    name: str
    kind: str  # provider, home or machine


def _stable(facts: t.Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in facts.items() if name not in observations.MEASURED}


def decide_host(seen: SeenHost, row: HostRow | None, machines: t.Container[str]) -> HostChange:
    """What to write of a provider or home.

    :param machines: names of all machines.
    :raises GridError: ``name_taken``, ``no_site``.
    """
    if seen["name"] in machines:
        raise GridError(
            "name_taken",
            "a machine has this name",
            remedy="Give the host another name in the inventory, or retire the machine",
        )
    site = seen.get("site") or (row["site"] if row else None)
    if not site:
        raise GridError("no_site", "the host has no site", remedy="Set virtuoso_site for this host in the inventory")
    known: Values = row or {}
    old = {column: known.get(column) for column in _HOST_COLUMNS}
    before = None if row is None else {**old, **_stable(row["facts"])}
    facts = seen["facts"] if "facts" in seen else row["facts"] if row else {}
    given = {column: value for column, value in seen.items() if column in _HOST_COLUMNS}
    after = {**old, **given, **_stable(facts)}
    actions = ["register"] if row is None else ["update"] if changed_keys(before, after) else []
    return HostChange(seen["name"], actions, before, after, site, row["uuid"] if row else None, seen)


def _check_copy(seen: SeenMachine, row: MachineRow) -> None:
    """:raises GridError: ``stale_copy`` for a machine of an older generation on another provider than the known one."""
    theirs, ours = seen.get("generation", 0), row["generation"]
    if row["provider"] not in (None, seen["provider"]) and theirs < (ours or 0):
        raise GridError(
            "stale_copy",
            f"{seen['provider']} has generation {theirs} of the machine, {row['provider']} has generation {ours}",
            remedy=f"Make sure that the copy on {seen['provider']} is stopped, and undefine it there",
            provider=row["provider"],
        )


def _rebuilt(seen: SeenMachine, taken: t.Mapping[str, Taken], inventory: t.Container[str]) -> Spec:
    """The order of a machine that the store doesn't know.

    :param inventory: as for :func:`decide_machine`.

    :raises GridError: ``name_taken``, ``reserved_name``, and as :func:`parse_order`.
    """
    other = taken.get(seen["name"])
    if other is not None:
        raise GridError(
            "name_taken",
            f"{seen['provider']} has a machine {seen['uuid']} of this name, "
            f"but the store knows another {other.kind} of this name",
            remedy="Cancel the order of that name (state=absent), or undefine the machine on the provider",
            uuid=seen["uuid"],
        )
    check_inventory(seen["name"], inventory)
    if seen["name"] in RESERVED_NAMES:
        raise GridError(
            "reserved_name",
            f"{seen['name']} has a meaning of its own in an inventory",
            remedy="Undefine the machine on the provider",
        )
    return parse_order(observations.wish_of(seen))


def decide_machine(
    seen: SeenMachine,
    row: MachineRow | None,
    taken: t.Mapping[str, Taken],
    sites: t.Mapping[str, str | None],
    inventory: t.Container[str] = (),
) -> MachineChange | None:
    """What to write of a machine that a provider has, or doesn't have any more (``absent``); ``None`` if nothing.

    :param row: what the store knows; without it the machine and its order are rebuilt from what was seen.
    :param taken: machines and hosts by name.
    :param sites: the site of each known provider, by the provider's name.
    :param inventory: names of hosts and groups that a machine which the store doesn't know can't have.
    :raises GridError: ``unknown_provider``, ``name_taken``, ``reserved_name``, ``stale_copy``, and as
        :func:`parse_order`.
    """
    absent = seen["state"] == "absent"
    if absent and (row is None or row["future"]):
        return None
    if seen["provider"] not in sites:
        raise GridError(
            "unknown_provider",
            f"{seen['provider']} is not registered",
            remedy="Register the provider, in the same task or before",
            provider=seen["provider"],
        )
    if row is None:
        spec = _rebuilt(seen, taken, inventory)
        return MachineChange(seen, ["rebuild"], None, _state_after(seen, None, sites[seen["provider"]]), spec)
    _check_copy(seen, row)
    before, after = _state_before(row), _state_after(seen, row, sites[seen["provider"]])
    actions = []
    if row["future"]:
        actions.append("exist")
    elif row["provider"] != seen["provider"]:
        actions.append("move")
    if row["missing"] and not absent:
        actions.append("return")
    if not actions and changed_keys(_compared(before), _compared(after)):
        actions.append("update")
    return MachineChange(seen, actions, before, after)


def _compared(state: MachineState) -> Values:
    """What counts as a change. The source of the address doesn't: a guest's agent starts later than its lease."""
    return {**state, "facts": {key: value for key, value in state["facts"].items() if key != "address_source"}}


def _state_before(row: MachineRow) -> MachineState:
    return {
        "state": row["state"],
        "generation": row["generation"],
        "cpus": row["cpus"],
        "memory": row["memory"],
        "disk": row["disk"],
        "provider": row["provider"],
        "site": row["site"],
        "address": row["address"],
        "facts": row["facts"],
        "future": row["future"],
    }


def _state_after(seen: SeenMachine, row: MachineRow | None, site: str | None) -> MachineState:
    """What wasn't reported keeps its value; so do the addresses that were last seen if there are none now."""
    old: MachineFacts = row["facts"] if row else {}
    facts: MachineFacts = {**old, **seen["facts"]}
    if not facts.get("addresses") and old.get("addresses") and old.get("address_source") != "ordered":
        facts["addresses"], facts["address_source"] = old["addresses"], old.get("address_source")
    return {
        "state": seen["state"],
        "generation": seen.get("generation", row["generation"] if row else None),
        "cpus": seen.get("cpus", row["cpus"] if row else None),
        "memory": seen.get("memory", row["memory"] if row else None),
        "disk": seen.get("disk", row["disk"] if row else None),
        "provider": seen["provider"],
        "site": site,
        "address": next(iter(facts.get("addresses") or ()), None),
        "facts": facts,
        "future": False,
    }


def newest_copies(machines: t.Iterable[SeenMachine], rows: t.Mapping[str, MachineRow]) -> dict[str, str]:
    """The provider of the copy that counts, for each uuid that was seen more than once.

    The highest generation counts; of equal ones the copy that runs, else the one on the provider that the store knows.

    :param rows: the store's machines by uuid.
    """
    copies: dict[str, list[SeenMachine]] = {}
    for seen in machines:
        copies.setdefault(seen["uuid"], []).append(seen)

    def rank(seen: SeenMachine) -> tuple[bool, int, bool, bool, str]:
        row, state, provider = rows.get(seen["uuid"]), seen["state"], seen["provider"]
        known = row is not None and row["provider"] == provider
        return state != "absent", seen.get("generation", 0), state == "running", known, provider

    return {uuid: max(found, key=rank)["provider"] for uuid, found in copies.items() if len(found) > 1}


def _readmit(connection: sa.Connection, spec: Spec, seen: SeenMachine, provider: str) -> None:
    """Write the reservation of a machine whose order was rebuilt, unless it has ended.

    It was admitted once, so it is not checked again.

    :param provider: uuid of the provider.
    """
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


def _image(facts: MachineFacts) -> NewImage:
    """The image that a machine is made from; empty if it isn't known."""
    image = facts.get("image")
    digest = image.get("digest") if image else None
    return {"digest": digest, "name": image.get("name")} if image and digest else {}


class Registration:
    """One run of the module: decides on everything within the caller's transaction; :meth:`write` writes it."""

    def __init__(self, connection: sa.Connection, inventory: t.Iterable[str] = ()) -> None:
        """:param inventory: names of hosts and groups that a machine which the store doesn't know can't have."""
        self.connection = connection
        self.inventory = frozenset(inventory)
        self.machines = {row["uuid"]: row for row in query.machines(connection)}
        self.hosts = {row["name"]: row for row in query.hosts(connection)}
        self.host_changes: list[HostChange] = []
        self.machine_changes: list[MachineChange] = []
        self.retired: list[str] = []  # uuids
        self.vanished: list[MachineRow] = []
        self.foreign: list[domains.Foreign] = []
        self.samples: list[SampleRow] = []

    def see_hosts(self, given: t.Sequence[object]) -> list[Result]:
        """Decide on providers and homes."""
        machines = {row["name"] for row in self.machines.values()}

        def decide(entry: object) -> Result:
            seen = observations.read_host(entry)
            change = decide_host(seen, self.hosts.get(seen["name"]), machines)
            self.host_changes.append(change)
            return {"changed": bool(change.actions), "actions": change.actions}

        return [
            attempt(
                shown_name(entry, position), functools.partial(decide, entry), kind="host", tried="register the host"
            )
            for position, entry in enumerate(given, 1)
        ]

    def see_machines(self, given: t.Sequence[object]) -> list[Result]:
        """Decide on machines; domains that are not the grid's are ignored."""
        entries = [entry for entry in given if not (isinstance(entry, t.Mapping) and entry.get("foreign"))]
        read: dict[int, SeenMachine] = {}

        def look(position: int, entry: object) -> Result:
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
        newest = newest_copies(read.values(), self.machines)
        sites = {name: row["site"] for name, row in self.hosts.items()}
        sites.update({change.name: change.site for change in self.host_changes})
        rows: list[HostColumns] = [*self.machines.values(), *self.hosts.values()]
        taken = {row["name"]: Taken(row["name"], row["kind"]) for row in rows}
        for position, seen in read.items():
            counts = newest.get(seen["uuid"]) or seen["provider"]
            decide = functools.partial(self._see_machine, seen, counts, taken, sites)
            results[position - 1] = attempt(seen["name"], decide, kind="machine", tried="register the machine")
        return results

    def _see_machine(
        self, seen: SeenMachine, newest: str, taken: dict[str, Taken], sites: t.Mapping[str, str | None]
    ) -> Result:
        if seen["state"] != "absent" and seen["provider"] != newest:
            raise GridError(
                "several_copies",
                f"the machine is defined on {newest} and on {seen['provider']}",
                remedy="Find out which one is right, and undefine it on the other",
                providers=sorted({newest, seen["provider"]}),
            )
        row = self.machines.get(seen["uuid"])
        if seen["state"] == "absent" and (row is None or row["provider"] != seen["provider"]):
            return {"uuid": seen["uuid"], "actions": []}
        change = decide_machine(
            observations.without_addresses_of(seen, self._host_addresses()), row, taken, sites, self.inventory
        )
        taken.setdefault(seen["name"], Taken(seen["name"], "machine"))
        actions = []
        if change is not None:
            self.machine_changes.append(change)
            actions = change.actions
        return {"uuid": seen["uuid"], "changed": bool(actions), "actions": actions}

    def _host_addresses(self) -> frozenset[str]:
        """The addresses by which providers and homes are reached; those of whole reports, too."""
        reported = [change.seen.get("address") for change in self.host_changes]
        return frozenset(
            str(address) for address in [*reported, *(row["address"] for row in self.hosts.values())] if address
        )

    def see_all(self, complete: t.Sequence[str], given: t.Sequence[object]) -> dict[str, list[Result]]:
        """Decide on machines that vanished from these providers, and on domains there that are not the grid's.

        :param complete: names of providers of which ``given`` has all machines.
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
        gone: list[Result] = [
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

    def see_samples(self, given: t.Sequence[object]) -> list[Result]:
        """Decide on measurements. Each is added; none counts as a change."""
        objects = samples.objects_by_name(self.connection) if given else {}

        def decide(entry: object) -> Result:
            self.samples.append(samples.read_sample(entry, objects))
            return {}

        return [
            attempt(
                f"sample {position}", functools.partial(decide, entry), kind="measurement", tried="record the sample"
            )
            for position, entry in enumerate(given, 1)
        ]

    def forget(self, gone: t.Sequence[str]) -> list[Result]:
        """Decide on machines that were retired: all their rows are deleted. Other uuids are ignored."""
        self.retired = [uuid for uuid in dict.fromkeys(gone) if uuid in self.machines]
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
            for uuid in self.retired
        ]
        hosts = [change.diff() for change in self.host_changes if change.actions]
        lost = [diff(f"machine {row['name']}", {"state": row["state"]}, {"state": "vanished"}) for row in self.vanished]
        return hosts + [change.diff() for change in self.machine_changes if change.actions] + lost + gone

    def write(self) -> None:
        """Write what was decided."""
        sites = writing.ensure_sites(self.connection, [change.site for change in self.host_changes])
        hosts = {name: row["uuid"] for name, row in self.hosts.items()}
        for change in self.host_changes:
            hosts[change.name] = self._write_host(change, sites)
        images = [_image(change.after["facts"]) for change in self.machine_changes]
        image_uuids = writing.ensure_images(self.connection, images)
        for machine in self.machine_changes:
            self._write_machine(machine, sites, hosts, image_uuids)
        self._write_plugs()
        time = writing.now()
        for row in self.vanished:
            writing.update(self.connection, schema.HOST, row["uuid"], {"state": "vanished", "missing": time})
        writing.add_events(
            self.connection, [(row["uuid"], "vanished", {"provider": row["provider"]}) for row in self.vanished]
        )
        domains.write_foreign(self.connection, self.foreign, hosts)
        writing.insert(self.connection, schema.SAMPLE, self.samples)
        writing.delete(self.connection, self.retired)

    def _write_plugs(self) -> None:
        """Write the networks of machines that are on another one than the store knows."""
        reported = {}
        for change in self.machine_changes:
            network = change.after["facts"].get("network")
            if network:
                reported[change.seen["uuid"]] = (network, change.after["facts"].get("mac"))
        known = query.plugs(self.connection, reported)
        new = {uuid: plug for uuid, plug in reported.items() if known.get(uuid) != plug}
        networks = writing.ensure_networks(self.connection, [name for name, dummy in new.values()]) if new else {}
        writing.plug(self.connection, [(uuid, networks[name], mac) for uuid, (name, mac) in new.items()])

    def _write_host(self, change: HostChange, sites: t.Mapping[str, str]) -> str:
        here, time = sites.get(change.site or ""), writing.now()
        columns = {column: change.after.get(column) for column in _HOST_COLUMNS}
        values: dict[str, object] = {**columns, "site": here, "seen": time}
        facts = change.seen.get("facts", {})
        if "facts" in change.seen:
            values["facts"] = facts
            values.update(observations.read_measured(facts))
        uuid = change.uuid
        if uuid is None:
            uuid = writing.new_uuid()
            writing.add_hosts(self.connection, [{"uuid": uuid, "name": change.name, **values}])
        else:
            writing.update(self.connection, schema.HOST, uuid, values)
        if "images" in facts:
            writing.set_layer_places(self.connection, uuid, observations.read_layers(facts))
        self.samples += [
            {"object": here, "peer": sites[site], "metric": "latency", "time": time, "value": seconds}
            for site, seconds in observations.read_latencies(facts).items()
            if here and site in sites and sites[site] != here
        ]
        details = {"fields": changed_keys(change.before, change.after)}
        writing.add_events(self.connection, [(uuid, action, details) for action in change.actions])
        return uuid

    def _write_machine(
        self,
        change: MachineChange,
        sites: t.Mapping[str, str],
        hosts: t.Mapping[str, str],
        images: t.Mapping[str, str],
    ) -> None:
        seen, after, time = change.seen, change.after, writing.now()
        row = self.machines.get(seen["uuid"])
        missing = ((row["missing"] if row else None) or time) if after["state"] == "absent" else None
        values = {
            **{column: value for column, value in after.items() if column not in ("provider", "future")},
            **{"site": sites.get(after["site"] or ""), "seen": time, "missing": missing},
        }
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
        image = images.get(_image(after["facts"]).get("digest") or "")
        if image and (row is None or row["image_uuid"] != image):
            writing.set_constituent(self.connection, seen["uuid"], "image", image)
        fields = [field for field in changed_keys(change.before, after) if field != "facts"]
        facts = changed_keys(change.before["facts"] if change.before else None, after["facts"])
        details = {"state": after["state"], "provider": seen["provider"], "fields": [*fields, *facts]}
        writing.add_events(self.connection, [(seen["uuid"], action, details) for action in change.actions])
