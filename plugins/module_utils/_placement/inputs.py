# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What placement is given, checked: providers as they reported themselves, and machines as they were ordered (pure)."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store import query
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.spec import (
    GOALS,
    check_text,
    parse_reservation,
    shorten,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.model import (
    ARCHITECTURE,
    FOREVER,
    Demand,
    Provider,
    Rules,
    Slot,
    Use,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._times import now as time_now
from ansible_collections.virtuoso.grid.plugins.module_utils._units import format_size, parse_size

_COUNTS = ("cpus", "cpus_allocated", "memory", "memory_free", "memory_allocated", "disk", "disk_free", "disk_allocated")

DAY = 86400


@dataclasses.dataclass(frozen=True)
class Request:
    """What is to be placed, and how.

    ``hold``: seconds for which a future's room is held. ``within``: seconds to look for a better answer than the greedy
    one, ``None`` for none; ``seed`` and ``library`` (whether OR-Tools may be used) belong to that. ``homes``: home by
    owner.
    """

    machines: t.Sequence[t.Any]
    providers: t.Sequence[Provider]
    rules: Rules = Rules()
    hold: int = DAY
    within: float | None = None
    seed: int = 0
    library: bool = True
    homes: t.Mapping[str, str] = dataclasses.field(default_factory=dict)
    now: str = dataclasses.field(default_factory=time_now)


# option: what it must be above, the most that it may be, in words
_RANGES = {
    "cpu_overcommit": (0, 1000, "a number above 0, up to 1000"),
    "memory_overcommit": (0, 100, "a number above 0, up to 100"),
    "disk_overcommit": (0, 100, "a number above 0, up to 100"),
    "reservation_bound": (0, 1, "a number above 0, up to 1"),
    "hold": (0, 10**9, "a number of seconds above 0, up to 1000000000"),
    "within": (0, 3600, "a number of seconds above 0, up to 3600; to keep the first answer, set solver to greedy"),
    "seed": (-1, 2**31 - 1, "a whole number from 0 to 2147483647"),
}


def read_rules(options: t.Mapping[str, t.Any]) -> Rules:
    """The bounds from a module's options. :raises GridError: ``invalid_<option>``, ``invalid_size``."""
    for option, (above, most, form) in _RANGES.items():
        if option in options and not above < options[option] <= most:
            raise GridError(f"invalid_{option}", f"{option} {options[option]} is out of range", remedy=f"Give {form}")
    ratios = ("cpu_overcommit", "memory_overcommit", "disk_overcommit", "reservation_bound")
    return Rules(
        parse_size(options["host_reserve"], "host_reserve"),
        **{ratio: options[ratio] for ratio in ratios if ratio in options},
    )


def read_request(options: t.Mapping[str, t.Any]) -> Request:
    """The request from the module's options. :raises GridError: as :func:`read_rules`, ``invalid_provider``."""
    rules = read_rules(options)
    return Request(
        options["machines"],
        [read_provider(given) for given in options["providers"]],
        rules,
        hold=options["hold"],
        within=None if options["solver"] == "greedy" else options["within"],
        seed=options["seed"],
        library=options["solver"] == "auto",
        homes={str(owner): str(home) for owner, home in options["homes"].items()},
    )


def _number(value: t.Any) -> float | None:
    try:
        number = None if value is None or isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None
    return number if number is not None and abs(number) < 2**63 else None


def _named(values: t.Any, key: str) -> frozenset[str]:
    """The texts under ``key`` of a list of mappings, as a host reported them."""
    return frozenset(str(value[key]) for value in values or () if isinstance(value, t.Mapping) and value.get(key))


def _latency(value: t.Any) -> float | dict[str, float] | None:
    if not isinstance(value, t.Mapping):
        return _number(value)
    numbers = {str(home): _number(each) for home, each in value.items()}
    return {home: number for home, number in numbers.items() if number is not None}


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
    features = given.get("features") if isinstance(given.get("features"), (list, tuple)) else ()
    machines = given.get("machines") or ()
    return Provider(
        name=given["name"],
        site=given.get("site"),
        reachable=not given.get("unreachable"),
        trouble=str(given["reason"])[:300] if given.get("unreachable") and given.get("reason") else None,
        measured=measured,
        architecture=str(given.get("architecture") or ARCHITECTURE),
        digests=_named(given.get("images"), "digest"),
        networks=None if networks is None else frozenset(map(str, networks)),
        machines=_named(machines, "uuid"),
        running=_named(
            [item for item in machines if isinstance(item, t.Mapping) and item.get("state") == "running"], "uuid"
        ),
        machine_types=frozenset(map(str, given.get("machine_types") or ())),
        features=frozenset(map(str, features))
        | ({str(given["virtualization"])} if given.get("virtualization") else frozenset()),
        price=_number(given.get("price")),
        latency=_latency(given.get("latency")),
        speed=_number(given.get("speed")) or Provider.speed,
        **{count: int(value) if measured and value is not None else 0 for count, value in counts.items()},
    )


def read_image(given: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """A machine's image as a mapping."""
    image = given.get("image")
    return dict(image) if isinstance(image, t.Mapping) else {"name": image}


def _use(given: t.Mapping[str, t.Any]) -> Use:
    """What a machine will take. :raises GridError: ``invalid_size``, ``invalid_vcpus``, ``disk_too_small``."""
    image = read_image(given)
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


def _texts(given: t.Mapping[str, t.Any], field: str, form: str) -> frozenset[str]:
    values = given.get(field) or ()
    if not isinstance(values, (list, tuple, frozenset)):
        raise GridError(
            "invalid_order", f"{field} is not a list: {shorten(values)}", remedy=f"Give {field} as a list of text"
        )
    return frozenset(check_text(form, value) for value in values)


def slot_of(spec: t.Mapping[str, t.Any], key: str, owner: str | None, use: Use, begun: str) -> Slot | None:
    """The reservation that a machine's order asks for; ``None`` without one, or with one that is over.

    :param begun: since when, where the order doesn't say it.
    :raises GridError: ``invalid_...`` as :func:`parse_reservation`.
    """
    performance = spec.get("performance")
    given = performance.get("reservation") if isinstance(performance, t.Mapping) else None
    if not given:
        return None
    if not isinstance(given, t.Mapping) or given.get("period") is None or given.get("slice") is None:
        raise GridError(
            "invalid_reservation",
            "the reservation has no period or no slice",
            remedy="Give both, for example 100 ms and 20 ms",
        )
    wanted = parse_reservation(given)
    begin, end = wanted.get("from", begun), wanted.get("to", FOREVER)
    if end <= begin:
        return None
    # All virtual CPUs together; libvirt limits each of them.
    return Slot(key, owner, wanted["period"], wanted["slice"] * use.cpus, wanted.get("memory", use.memory), begin, end)


def read_demand(
    given: t.Any,
    rows: t.Mapping[str, query.Row],
    *,
    check: bool,
    homes: t.Mapping[str, str],
    begun: t.Callable[[str], str],
) -> Demand:
    """A machine from one entry of the option ``machines``, with what the store has of it.

    :param rows: the store's machines by uuid.
    :param homes: home by owner.
    :param begun: since when a machine's reservation runs that names no beginning.
    :raises GridError: ``invalid_order``, ``not_ordered``, ``invalid_goal``, and as :func:`_use`.
    """
    if not isinstance(given, t.Mapping) or not isinstance(given.get("name"), str):
        raise GridError(
            "invalid_order",
            "an entry of machines has no name",
            remedy="Give each machine as the module order returned it",
        )
    uuid = given.get("uuid")
    row = rows.get(uuid) if isinstance(uuid, str) else None
    if (row is None and (uuid or not check)) or (row is not None and row["name"] != given["name"]):
        raise GridError(
            "not_ordered",
            "the store has no order of this machine",
            remedy="Order it with the module order first, and give the uuid that it returns",
        )
    goal = str(given.get("goal") or "balance")
    if goal not in GOALS:
        raise GridError("invalid_goal", f"{shorten(goal)} is not a goal", remedy=f"Give one of {', '.join(GOALS)}")
    key, use = uuid or f"name {given['name']}", _use(given)
    owner = row["owner"] if row else given.get("owner")
    return Demand(
        name=given["name"],
        key=key,
        use=use,
        architecture=str(given.get("architecture") or read_image(given).get("architecture") or ARCHITECTURE),
        network=given.get("network"),
        goal=goal,
        at=(row["provider"] if row else None) or given.get("provider"),
        exists=bool(row and not row["future"]),
        owner=owner,
        site=check_text("site", given["site"]) if given.get("site") else None,
        features=_texts(given, "features", "feature"),
        tags=_texts(given, "tags", "tag"),
        affinity=_texts(given, "affinity", "affinity"),
        anti_affinity=_texts(given, "anti_affinity", "affinity"),
        slot=slot_of(given, key, owner, use, begun(key)),
        home=homes.get(owner or ""),
        extra_networks=_texts(given, "extra_networks", "network"),
    )


def read_placed(row: query.Row, use: Use) -> Demand:
    """A machine that is placed already, from its row in the store."""
    spec = row["spec"] or {}
    return Demand(
        name=row["name"],
        key=row["uuid"],
        use=use,
        at=row["provider"],
        exists=not row["future"],
        owner=row["owner"],
        **{field: frozenset(spec.get(field) or ()) for field in ("tags", "affinity", "anti_affinity")},
    )
