# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Placement on the store: what is held is read, and what is chosen is held, in the caller's one writing transaction.

A hold is a future machine's row in ``virtualization``: it counts until the machine is cancelled, retired or seen on its provider.
"""

from __future__ import annotations

import dataclasses
import functools
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._diff import diff
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._information import query, record, schema
from ansible_collections.virtuoso.grid.plugins.module_utils._information.orders import check_twice, places_of, shown_name
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.model import ARCHITECTURE, Demand, Provider, Rules, Use
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.solver import Answer, solve
from ansible_collections.virtuoso.grid.plugins.module_utils._run import Result, attempt
from ansible_collections.virtuoso.grid.plugins.module_utils._units import format_size, parse_size

if t.TYPE_CHECKING:
    import sqlalchemy as sa

_COUNTS = ("cpus", "cpus_allocated", "memory", "memory_free", "memory_allocated", "disk", "disk_free", "disk_allocated")


def _number(value: t.Any) -> float | None:
    try:
        return None if value is None or isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None


def _named(values: t.Any, key: str) -> frozenset[str]:
    """The texts under ``key`` of a list of mappings, as a host reported them."""
    return frozenset(str(value[key]) for value in values or () if isinstance(value, t.Mapping) and value.get(key))


def read_provider(given: t.Any) -> Provider:
    """A provider from one entry of the option ``providers``, which holds what ``provider_info`` returned.

    :raises GridError: ``invalid_provider``.
    """
    if not isinstance(given, t.Mapping) or not isinstance(given.get("name"), str) or not given["name"]:
        raise GridError(
            "invalid_provider",
            "an entry of providers has no name",
            remedy="Give each provider as a mapping with name and what it reported",
        )
    counts = {count: _number(given.get(count)) for count in _COUNTS}
    measured = all(count is not None and 0 <= count < 2**63 for count in counts.values())
    networks = given.get("networks")
    return Provider(
        name=given["name"],
        site=given.get("site"),
        reachable=not given.get("unreachable"),
        trouble=str(given["reason"])[:300] if given.get("unreachable") and given.get("reason") else None,
        measured=measured,
        architecture=str(given.get("architecture") or ARCHITECTURE),
        digests=_named(given.get("images"), "digest"),
        networks=None if networks is None else frozenset(map(str, networks)),
        machines=_named(given.get("machines"), "uuid"),
        running=_named(
            [item for item in given.get("machines") or () if isinstance(item, t.Mapping) and item.get("state") == "running"],
            "uuid",
        ),
        machine_types=frozenset(map(str, given.get("machine_types") or ())),
        price=_number(given.get("price")),
        latency=_number(given.get("latency")),
        **{count: int(value) if measured and value is not None else 0 for count, value in counts.items()},
    )


def _image(given: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    image = given.get("image")
    return dict(image) if isinstance(image, t.Mapping) else {"name": image}


def _use(given: t.Mapping[str, t.Any]) -> Use:
    """What a machine will take. :raises GridError: ``invalid_size``, ``invalid_vcpus``, ``disk_too_small``."""
    image = _image(given)
    virtual_size = parse_size(image.get("virtual_size") or 0, "virtual size of the image")
    disk = parse_size(given["disk"], "disk") if given.get("disk") is not None else virtual_size
    if disk < virtual_size:
        raise GridError(
            "disk_too_small",
            f"the disk has {format_size(disk)}, the image {image.get('name')} needs {format_size(virtual_size)}",
            remedy=f"Order a disk of at least {format_size(virtual_size)}, or leave disk out to get the image's size",
        )
    vcpus = given.get("vcpus", 1)
    if isinstance(vcpus, bool) or not str(vcpus).isdecimal() or not 1 <= int(vcpus) <= 2**16:
        raise GridError(
            "invalid_vcpus", f"{str(vcpus)[:60]!r} is not a number of virtual CPUs", remedy="Give a whole number from 1"
        )
    return Use(
        int(vcpus),
        parse_size(given.get("memory", 0), "memory"),
        disk,
        image.get("digest"),
        parse_size(image.get("size") or 0, "size of the image"),
    )


def read_demand(given: t.Any, rows: t.Mapping[str, query.Row], *, check: bool) -> Demand:
    """A machine from one entry of the option ``machines``, with what the store has of it.

    :param rows: the store's machines by uuid. :raises GridError: ``invalid_order``, ``not_ordered``, and as :func:`_use`.
    """
    if not isinstance(given, t.Mapping) or not isinstance(given.get("name"), str):
        raise GridError(
            "invalid_order", "an entry of machines has no name", remedy="Give each machine as the module order returned it"
        )
    uuid = given.get("uuid")
    row = rows.get(uuid) if isinstance(uuid, str) else None
    if (row is None and (uuid or not check)) or (row is not None and row["name"] != given["name"]):
        raise GridError(
            "not_ordered",
            "the store has no order of this machine",
            remedy="Order it with the module order first, and give the uuid that it returns",
        )
    return Demand(
        name=given["name"],
        key=uuid or f"name {given['name']}",
        use=_use(given),
        architecture=str(given.get("architecture") or _image(given).get("architecture") or ARCHITECTURE),
        network=given.get("network"),
        goal=str(given.get("goal") or "balance"),
        at=(row["provider"] if row else None) or given.get("provider"),
        exists=bool(row and not row["future"]),
    )


def _seen_use(row: query.Row) -> Use:
    """What the machine takes as last seen, or will take as a future."""
    return Use(row["cpus"] or 0, row["memory"] or 0, row["disk"] or 0)


def _held_use(row: query.Row, images: t.Mapping[str, query.Row]) -> Use:
    """What the machine takes, or will take once its order is carried out."""
    spec, image = row["spec"] or {}, images.get(row["image_uuid"] or "", {})
    return Use(
        max(row["cpus"] or 0, spec.get("vcpus") or 0),
        max(row["memory"] or 0, spec.get("memory") or 0),
        max(row["disk"] or 0, spec.get("disk") or 0),
        image.get("digest"),
        image.get("size") or 0,
    )


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
        "generation": query.generation_of(row) if row else 1,
    }


@dataclasses.dataclass(frozen=True)
class Known:
    """What the store has: machines by uuid, what is held on each provider, what each existing machine takes as last seen."""

    rows: t.Mapping[str, query.Row]
    held: t.Mapping[str, t.Mapping[str, Use]]
    seen: t.Mapping[str, Use]


def _read(connection: sa.Connection) -> Known:
    rows = {row["uuid"]: row for row in query.machines(connection)}
    images = {row["uuid"]: row for row in query.images(connection)}
    held: dict[str, dict[str, Use]] = {}
    for uuid, row in rows.items():
        if row["provider"]:
            held.setdefault(row["provider"], {})[uuid] = _held_use(row, images)
    return Known(rows, held, {uuid: _seen_use(row) for uuid, row in rows.items() if not row["future"]})


def _try(name: str, work: t.Callable[[], Result]) -> Result:
    return attempt(name, work, kind="machine", tried="place the machine")


def place(
    connection: sa.Connection, machines: t.Sequence[t.Any], providers: t.Sequence[Provider], rules: Rules, *, check: bool
) -> tuple[list[Result], list[dict[str, str]]]:
    """Choose a provider for each machine and hold its room there; what can't be placed fails on its own. Returns results and diffs.

    :param check: choose only.
    """
    known = _read(connection)
    places = places_of(given.get("name") if isinstance(given, t.Mapping) else None for given in machines)
    demands: dict[int, Demand] = {}

    def read(position: int, given: t.Any) -> Result:
        demand = read_demand(given, known.rows, check=check)
        check_twice(places[demand.name])
        demands[position] = demand
        return {}

    entries = list(enumerate(machines, 1))
    results = [_try(shown_name(given, position), functools.partial(read, position, given)) for position, given in entries]
    answers = dict(zip(demands, solve(list(demands.values()), providers, known.held, known.seen, rules)))
    sites = {provider.name: provider.site for provider in providers}
    chosen = []
    for position, demand in demands.items():
        answer, row = answers[position], known.rows.get(demand.key)
        results[position - 1] = _try(demand.name, functools.partial(_result, demand, answer, sites, row))
        if answer.provider is not None:
            chosen.append((demand, row, answer.provider))
    if not check:
        images = {
            image["digest"]: image for image in (_image(machines[position - 1]) for position in demands) if image.get("digest")
        }
        _hold(connection, chosen, images, providers)
    diffs = []
    for demand, row, provider in chosen:
        before, after = {"provider": row["provider"] if row else None}, {"provider": provider}
        if before != after:
            diffs.append(diff(f"place of machine {demand.name}", before, after))
    return results, diffs


def _hold(
    connection: sa.Connection,
    chosen: t.Sequence[tuple[Demand, query.Row | None, str]],
    images: t.Mapping[t.Any, dict[str, t.Any]],
    providers: t.Sequence[Provider],
) -> None:
    """Write what was chosen, and what each future machine will take; writes nothing that is written already."""
    sites = record.ensure_sites(connection, [provider.site for provider in providers])
    site_of = {provider.name: sites.get(provider.site or "") for provider in providers}
    names = {choice[2] for choice in chosen}
    hosts = {row["name"]: row["uuid"] for row in query.hosts(connection, names=names)}
    new = [
        {"uuid": record.new_uuid(), "name": name, "kind": "provider", "site": site_of[name]}
        for name in sorted(names - set(hosts))
    ]
    record.add_hosts(connection, new)
    hosts.update({row["name"]: row["uuid"] for row in new})
    image_uuids = record.ensure_images(connection, [images[choice[0].use.digest] for choice in chosen if choice[0].use.digest])
    events = []
    for demand, row, provider in chosen:
        if row is None:
            continue
        if row["provider"] != provider:
            record.set_constituent(connection, row["uuid"], "provider", hosts[provider])
            record.update(connection, schema.HOST, row["uuid"], {"site": site_of[provider]})
            events.append((row["uuid"], "placed", {"provider": provider}))
        if row["future"]:
            image = image_uuids.get(demand.use.digest or "")
            if image != row["image_uuid"]:
                record.set_constituent(connection, row["uuid"], "image", image)
            if row["disk"] != demand.use.disk:
                record.update(connection, schema.HOST, row["uuid"], {"disk": demand.use.disk})
    record.add_events(connection, events)
