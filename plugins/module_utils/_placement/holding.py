# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Placement on the store: what is held is read, and what is chosen is held, in the caller's one writing transaction.

A hold is a future machine's row in ``virtualization``: it counts until the machine is cancelled, retired or seen on its
provider, or until it has expired. Searching takes seconds and excludes nobody: :func:`propose` reads one state of the
store, and
:func:`place` takes from the proposal what still fits when its turn has come, and chooses anew for the rest.
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
from ansible_collections.virtuoso.grid.plugins.module_utils._placement import improvement
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.greedy import Answer, solve
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.inputs import Request, read_demand, read_image
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.model import Demand, Provider, Slot
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.stored import PLACED, Known, read_known
from ansible_collections.virtuoso.grid.plugins.module_utils._run import Result, attempt

if t.TYPE_CHECKING:
    import sqlalchemy as sa


@dataclasses.dataclass
class _Batch:
    """The entries as far as they could be read, by position, and a result for each entry."""

    known: Known
    demands: dict[int, Demand]
    results: list[Result]

    @property
    def wanted(self) -> list[Demand]:
        return list(self.demands.values())


def _try(name: str, work: t.Callable[[], Result]) -> Result:
    return attempt(name, work, kind="machine", tried="place the machine")


def _read(connection: sa.Connection, request: Request, *, check: bool) -> _Batch:
    known = read_known(connection, hold=request.hold, now=request.now)
    places = places_of(given.get("name") if isinstance(given, t.Mapping) else None for given in request.machines)
    demands: dict[int, Demand] = {}
    begun = known.begun(request.now)

    def read(position: int, given: t.Any) -> Result:
        demand = read_demand(given, known.rows, check=check, homes=request.homes, begun=begun)
        check_twice(places[demand.name])
        demands[position] = demand
        return {}

    entries = list(enumerate(request.machines, 1))
    results = [
        _try(shown_name(given, position), functools.partial(read, position, given)) for position, given in entries
    ]
    return _Batch(known, demands, results)


def propose(connection: sa.Connection, request: Request, *, check: bool) -> tuple[dict[str, str], improvement.Told]:
    """A provider for each machine, by its key, and how that was found; writes nothing, and may take ``within`` seconds."""
    batch = _read(connection, request, check=check)
    past = batch.known.past({demand.key for demand in batch.wanted})
    answers, told = improvement.place(
        batch.wanted,
        request.providers,
        past,
        request.rules,
        within=request.within,
        seed=request.seed,
        library=request.library,
    )
    return {demand.key: answer.provider for demand, answer in zip(batch.wanted, answers) if answer.provider}, told


def _result(demand: Demand, answer: Answer, sites: t.Mapping[str, str | None], row: query.Row | None) -> Result:
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
    """Choose a provider for each machine and hold its room there; what can't be placed fails on its own. Returns
    results and diffs.

    :param check: choose only. :param proposal: as :func:`propose` returns it.
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
            chosen.append((demand, row, answer.provider))
    if not check:
        images = [read_image(request.machines[position - 1]) for position in batch.demands]
        _hold(connection, known, chosen, {image["digest"]: image for image in images if image.get("digest")}, request)
    diffs = []
    for demand, row, provider in chosen:
        before, after = {"provider": row["provider"] if row else None}, {"provider": provider}
        if before != after:
            diffs.append(diff(f"place of machine {demand.name}", before, after))
    return results, diffs


_Chosen = t.Sequence[t.Tuple[Demand, t.Optional[query.Row], str]]


def _ensure_providers(
    connection: sa.Connection, providers: t.Sequence[Provider], names: set[str]
) -> dict[str, tuple[str, str | None]]:
    """uuid and site's uuid of each named provider; those that the store doesn't have are made."""
    sites = writing.ensure_sites(connection, [provider.site for provider in providers])
    site_of = {provider.name: sites.get(provider.site or "") for provider in providers}
    hosts = {row["name"]: row["uuid"] for row in query.hosts(connection, names=names)}
    new = [
        {"uuid": writing.new_uuid(), "name": name, "kind": "provider", "site": site_of[name]}
        for name in sorted(names - set(hosts))
    ]
    writing.add_hosts(connection, new)
    hosts.update({row["name"]: row["uuid"] for row in new})
    return {name: (hosts[name], site_of[name]) for name in names}


def _hold(
    connection: sa.Connection,
    known: Known,
    chosen: _Chosen,
    images: t.Mapping[str, t.Mapping[str, t.Any]],
    request: Request,
) -> None:
    """Write what was chosen, and what each future machine will take; writes nothing that is written already."""
    hosts = _ensure_providers(connection, request.providers, {choice[2] for choice in chosen})
    image_uuids = writing.ensure_images(
        connection, [dict(images[choice[0].use.digest]) for choice in chosen if choice[0].use.digest]
    )
    events = []
    for demand, row, provider in chosen:
        if row is None:
            continue
        uuid, site = hosts[provider]
        if row["provider"] != provider:
            writing.set_constituent(connection, row["uuid"], "provider", uuid)
            writing.update(connection, schema.HOST, row["uuid"], {"site": site})
        if row["provider"] != provider or row["uuid"] in known.expired:
            events.append((row["uuid"], PLACED, {"provider": provider}))
        if row["future"]:
            image = image_uuids.get(demand.use.digest or "")
            if image != row["image_uuid"]:
                writing.set_constituent(connection, row["uuid"], "image", image)
            if row["disk"] != demand.use.disk:
                writing.update(connection, schema.HOST, row["uuid"], {"disk": demand.use.disk})
    _admit(connection, known, chosen, {name: uuid for name, (uuid, dummy) in hosts.items()}, request.now)
    writing.add_events(connection, events)


def _row_of(slot: Slot, provider: str) -> query.Row:
    return {
        "machine": slot.key,
        "owner": slot.owner or "",
        "provider": provider,
        "cpu_period_us": slot.period,
        "cpu_slice_us": slot.slice,
        "memory": slot.memory,
        "begin": slot.begin,
        "end": slot.end,
    }


def _admit(connection: sa.Connection, known: Known, chosen: _Chosen, hosts: t.Mapping[str, str], now: str) -> None:
    """The reservations of these machines become what their orders say now."""
    have = {row["machine"]: row for row in known.reservations if row["machine"]}
    gone, new = [], []
    for demand, row, provider in chosen:
        if row is None:
            continue
        wanted = _row_of(demand.slot, hosts[provider]) if demand.slot else None
        old = have.get(demand.key)
        same = (
            old is not None
            and wanted is not None
            and all(
                old["provider_uuid" if column == "provider" else column] == value for column, value in wanted.items()
            )
        )
        if old is not None and not same:
            gone.append(old["uuid"])
        if wanted is not None and not same:
            new.append({"uuid": writing.new_uuid(), **wanted, "state": "admitted", "created": now})
    writing.delete(connection, gone)
    writing.add_objects(connection, "reservation", new)
    writing.insert(connection, schema.RESERVATION, new)
