# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Placement on the store: holds are read, and what is chosen is held, in one writing transaction of the caller.

A hold is the row of a future machine in ``virtualization``. It counts until the machine is cancelled, retired or seen
on its provider, or until it expires. The search takes seconds and must not block other plays: :func:`propose` reads one
state of the store without a lock; then :func:`place` takes what still fits of the proposal, and chooses anew for the
rest.
"""

from __future__ import annotations

import dataclasses
import functools
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._diff import diff
from ansible_collections.virtuoso.grid.plugins.module_utils._information.inventory import views
from ansible_collections.virtuoso.grid.plugins.module_utils._information.registration.orders import (
    check_twice,
    places_of,
    shown_name,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store import query, schema, writing
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store.records import (
    MachineRow,
    NewImage,
    ReservationColumns,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._placement import improvement
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.greedy import Answer, solve
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.inputs import (
    Image,
    Request,
    read_demand,
    read_image,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.model import Demand, Provider, Slot
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.stored import PLACED, Known, read_known
from ansible_collections.virtuoso.grid.plugins.module_utils._run import Result, attempt

if t.TYPE_CHECKING:
    import sqlalchemy as sa


@dataclasses.dataclass
class _Batch:
    """The entries of a request: those that could be read, and a result for each."""

    known: Known
    demands: dict[int, Demand]  # by position, counted from 1
    images: dict[int, Image]  # likewise
    results: list[Result]

    @property
    def wanted(self) -> list[Demand]:
        return list(self.demands.values())


@dataclasses.dataclass(frozen=True)
class _Choice:
    """A machine, what the store knows of it (nothing in check mode before it is ordered), and where it is to be."""

    demand: Demand
    row: MachineRow | None
    provider: str
    image: Image


def _try(name: str, work: t.Callable[[], Result]) -> Result:
    return attempt(name, work, kind="machine", tried="place the machine")


def _read(connection: sa.Connection, request: Request, *, check: bool) -> _Batch:
    known = read_known(connection, hold=request.hold, now=request.now)
    places = places_of(given.get("name") if isinstance(given, t.Mapping) else None for given in request.machines)
    demands: dict[int, Demand] = {}
    images: dict[int, Image] = {}
    begun = known.begun(request.now)

    def read(position: int, given: object) -> Result:
        demand = read_demand(given, known.rows, check=check, homes=request.homes, begun=begun)
        check_twice(places[demand.name])
        if isinstance(given, t.Mapping):
            images[position] = read_image(given)
        demands[position] = demand
        return {}

    entries = list(enumerate(request.machines, 1))
    results = [
        _try(shown_name(given, position), functools.partial(read, position, given)) for position, given in entries
    ]
    return _Batch(known, demands, images, results)


def propose(connection: sa.Connection, request: Request, *, check: bool) -> tuple[dict[str, str], improvement.Report]:
    """A provider for each machine, by its key, and how it was found. Writes nothing; may take ``within`` seconds."""
    batch = _read(connection, request, check=check)
    past = batch.known.past({demand.key for demand in batch.wanted})
    answers, report = improvement.place(
        batch.wanted,
        request.providers,
        past,
        request.rules,
        within=request.within,
        seed=request.seed,
        library=request.library,
    )
    return {demand.key: answer.provider for demand, answer in zip(batch.wanted, answers) if answer.provider}, report


def _result(demand: Demand, answer: Answer, sites: t.Mapping[str, str | None], row: MachineRow | None) -> Result:
    if answer.error is not None:
        raise answer.error
    moved = demand.at != answer.provider or bool(row and row["provider"] != answer.provider)
    return {
        "changed": moved,
        "actions": ["place"] if moved else [],
        "uuid": row["uuid"] if row else None,
        "provider": answer.provider,
        "site": sites.get(answer.provider or ""),
        "reasons": dict(answer.reasons),
        "generation": views.generation_of(row) if row else 1,
    }


def place(
    connection: sa.Connection, request: Request, *, check: bool, proposal: t.Mapping[str, str] | None = None
) -> tuple[list[Result], list[dict[str, str]]]:
    """Choose a provider for each machine and hold room for it there. A machine that can't be placed fails alone.

    Returns results and diffs.

    :param check: choose only, write nothing.
    :param proposal: as :func:`propose` returns it.
    """
    batch = _read(connection, request, check=check)
    known, results = batch.known, batch.results
    past = known.past({demand.key for demand in batch.wanted})
    answers = dict(
        zip(batch.demands, solve(batch.wanted, request.providers, rules=request.rules, past=past, proposal=proposal))
    )
    sites = {provider.name: provider.site for provider in request.providers}
    chosen = []
    for position, demand in batch.demands.items():
        answer, row = answers[position], known.rows.get(demand.key)
        results[position - 1] = _try(demand.name, functools.partial(_result, demand, answer, sites, row))
        if answer.provider is not None:
            chosen.append(_Choice(demand, row, answer.provider, batch.images[position]))
    if not check:
        _hold(connection, known, chosen, request)
    diffs = []
    for choice in chosen:
        before, after = {"provider": choice.row["provider"] if choice.row else None}, {"provider": choice.provider}
        if before != after:
            diffs.append(diff(f"place of machine {choice.demand.name}", before, after))
    return results, diffs


def _ensure_providers(
    connection: sa.Connection, providers: t.Sequence[Provider], names: set[str]
) -> dict[str, tuple[str, str | None]]:
    """uuid and site's uuid of each named provider; missing ones are created."""
    sites = writing.ensure_sites(connection, [provider.site for provider in providers])
    site_of = {provider.name: sites.get(provider.site or "") for provider in providers}
    hosts = {row["name"]: row["uuid"] for row in query.hosts(connection, names=names)}
    new = {name: writing.new_uuid() for name in sorted(names - set(hosts))}
    writing.add_hosts(
        connection,
        [{"uuid": uuid, "name": name, "kind": "provider", "site": site_of[name]} for name, uuid in new.items()],
    )
    hosts.update(new)
    return {name: (hosts[name], site_of[name]) for name in names}


def _new_image(image: Image) -> NewImage:
    if image.digest is None:
        return {}
    return {"digest": image.digest, "name": image.name, "size": image.size, "virtual_size": image.virtual_size}


def _hold(connection: sa.Connection, known: Known, chosen: t.Sequence[_Choice], request: Request) -> None:
    """Write what was chosen, and what each future machine will take. Rows that are right already are not written."""
    hosts = _ensure_providers(connection, request.providers, {choice.provider for choice in chosen})
    image_uuids = writing.ensure_images(connection, [_new_image(choice.image) for choice in chosen])
    events = []
    for choice in chosen:
        row, provider, use = choice.row, choice.provider, choice.demand.use
        if row is None:
            continue
        uuid, site = hosts[provider]
        if row["provider"] != provider:
            writing.set_constituent(connection, row["uuid"], "provider", uuid)
            writing.update(connection, schema.HOST, row["uuid"], {"site": site})
        if row["provider"] != provider or row["uuid"] in known.expired:
            events.append((row["uuid"], PLACED, {"provider": provider}))
        if row["future"]:
            image = image_uuids.get(use.digest or "")
            if image != row["image_uuid"]:
                writing.set_constituent(connection, row["uuid"], "image", image)
            if row["disk"] != use.disk:
                writing.update(connection, schema.HOST, row["uuid"], {"disk": use.disk})
    _admit(connection, known, chosen, {name: uuid for name, (uuid, dummy) in hosts.items()}, request.now)
    writing.add_events(connection, events)


def columns_of(slot: Slot) -> ReservationColumns:
    """A reservation as columns of the store, all but its provider."""
    return {
        "machine": slot.key,
        "owner": slot.owner or "",
        "cpu_period_us": slot.period,
        "cpu_slice_us": slot.slice,
        "memory": slot.memory,
        "begin": slot.begin,
        "end": slot.end,
    }


def _admit(
    connection: sa.Connection, known: Known, chosen: t.Iterable[_Choice], hosts: t.Mapping[str, str], now: str
) -> None:
    """Write the reservations that the orders of these machines ask for now.

    :param hosts: uuids of providers by name.
    """
    have = {row["machine"]: row for row in known.reservations if row["machine"]}
    gone, new = [], []
    for choice in chosen:
        if choice.row is None:
            continue
        slot, provider, old = choice.demand.slot, hosts[choice.provider], have.get(choice.demand.key)
        wanted = columns_of(slot) if slot else None
        if old is not None and wanted is not None and old["provider_uuid"] == provider and _contains(old, wanted):
            continue
        if old is not None:
            gone.append(old["uuid"])
        if wanted is not None:
            more = {"uuid": writing.new_uuid(), "provider": provider, "state": "admitted", "created": now}
            new.append({**wanted, **more})
    writing.delete(connection, gone)
    writing.add_objects(connection, "reservation", new)
    writing.insert(connection, schema.RESERVATION, new)


def _contains(row: t.Mapping[str, object], columns: t.Mapping[str, object]) -> bool:
    return all(row[column] == value for column, value in columns.items())
