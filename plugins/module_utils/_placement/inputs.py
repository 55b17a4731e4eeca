# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of the module ``placement``, checked: machines as ordered, providers as they reported, rules (pure)."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store.records import MachineRow
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
    """What is to be placed, and how."""

    machines: t.Sequence[object]  # unchecked; read_demand reads one
    providers: t.Sequence[Provider]
    rules: Rules = Rules()
    hold: int = DAY  # seconds for which room is held for a future
    within: float | None = None  # seconds to improve the greedy answer; None to keep it
    seed: int = 0  # of the search
    library: bool = True  # whether the search may use OR-Tools
    homes: t.Mapping[str, str] = dataclasses.field(default_factory=dict)  # the home of each owner
    now: str = dataclasses.field(default_factory=time_now)


@dataclasses.dataclass(frozen=True)
class Image:
    """A machine's image as the option ``machines`` has it; ``None`` for what it doesn't say. Sizes in bytes."""

    name: str | None = None
    digest: str | None = None
    size: int | None = None  # of its layer
    virtual_size: int | None = None
    architecture: str | None = None


class RuleOptions(t.TypedDict, total=False):
    """The options of the modules ``placement`` and ``reservation`` that say what a provider may promise."""

    host_reserve: str
    cpu_overcommit: float
    memory_overcommit: float
    disk_overcommit: float
    reservation_bound: float
    hold: int  # seconds


class PlacementOptions(RuleOptions, total=False):
    """The options of the module ``placement``, each with a value."""

    machines: list[object]
    providers: list[object]
    within: float  # seconds
    seed: int
    solver: str
    homes: dict[str, object]


# option: lower bound (excluded), upper bound (included), in words
_RANGES = {
    "cpu_overcommit": (0, 1000, "a number above 0, up to 1000"),
    "memory_overcommit": (0, 100, "a number above 0, up to 100"),
    "disk_overcommit": (0, 100, "a number above 0, up to 100"),
    "reservation_bound": (0, 1, "a number above 0, up to 1"),
    "hold": (0, 10**9, "a number of seconds above 0, up to 1000000000"),
    "within": (0, 3600, "a number of seconds above 0, up to 3600; to keep the first answer, set solver to greedy"),
    "seed": (-1, 2**31 - 1, "a whole number from 0 to 2147483647"),
}


def read_rules(options: RuleOptions) -> Rules:
    """The rules from a module's options. The other numbers among the options are checked too.

    :raises GridError: ``invalid_<option>``, ``invalid_size``.
    """
    given: t.Mapping[str, object] = options
    for option, (above, most, form) in _RANGES.items():
        number = given.get(option)
        if isinstance(number, (int, float)) and not above < number <= most:
            raise GridError(f"invalid_{option}", f"{option} {number} is out of range", remedy=f"Give {form}")
    return Rules(
        host_reserve=parse_size(options["host_reserve"], "host_reserve"),
        cpu_overcommit=options.get("cpu_overcommit", Rules.cpu_overcommit),
        memory_overcommit=options.get("memory_overcommit", Rules.memory_overcommit),
        disk_overcommit=options.get("disk_overcommit", Rules.disk_overcommit),
        reservation_bound=options.get("reservation_bound", Rules.reservation_bound),
    )


def read_request(options: PlacementOptions) -> Request:
    """The request from the module's options.

    :raises GridError: as :func:`read_rules`; ``invalid_provider``.
    """
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


def _number(value: object) -> float | None:
    if not isinstance(value, (int, float, str)) or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if abs(number) < 2**63 else None


def _items(value: object) -> t.Sequence[object]:
    """The items of a list; nothing if it is none."""
    return value if isinstance(value, (list, tuple)) else ()


def _named(values: object, key: str) -> frozenset[str]:
    """The texts under ``key`` in a list of mappings, as a host reported them."""
    return frozenset(str(each[key]) for each in _items(values) if isinstance(each, t.Mapping) and each.get(key))


def _latency(value: object) -> float | dict[str, float] | None:
    if not isinstance(value, t.Mapping):
        return _number(value)
    numbers = {str(home): _number(each) for home, each in value.items()}
    return {home: number for home, number in numbers.items() if number is not None}


def read_provider(given: object) -> Provider:
    """A provider from one entry of the option ``providers``, which has what ``provider_info`` returned.

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
    machines = _items(given.get("machines"))
    running = [each for each in machines if isinstance(each, t.Mapping) and each.get("state") == "running"]
    features = {str(feature) for feature in _items(given.get("features"))}
    if given.get("virtualization"):
        features.add(str(given["virtualization"]))
    return Provider(
        name=given["name"],
        site=given.get("site"),
        reachable=not given.get("unreachable"),
        trouble=str(given["reason"])[:300] if given.get("unreachable") and given.get("reason") else None,
        measured=measured,
        architecture=str(given.get("architecture") or ARCHITECTURE),
        digests=_named(given.get("images"), "digest"),
        networks=None if networks is None else frozenset(map(str, _items(networks))),
        machines=_named(machines, "uuid"),
        running=_named(running, "uuid"),
        machine_types=frozenset(map(str, _items(given.get("machine_types")))),
        features=frozenset(features),
        price=_number(given.get("price")),
        latency=_latency(given.get("latency")),
        speed=_number(given.get("speed")) or Provider.speed,
        **{count: int(value) if measured and value is not None else 0 for count, value in counts.items()},
    )


def _text(value: object) -> str | None:
    return str(value) if value else None


def read_image(given: t.Mapping[str, object]) -> Image:
    """The image of an entry of the option ``machines``, which is a name or a mapping.

    :raises GridError: ``invalid_size``.
    """
    image = given.get("image")
    if not isinstance(image, t.Mapping):
        return Image(name=_text(image))
    size, virtual_size = image.get("size"), image.get("virtual_size")
    return Image(
        name=_text(image.get("name")),
        digest=_text(image.get("digest")),
        size=None if size is None else parse_size(size or 0, "size of the image"),
        virtual_size=None if virtual_size is None else parse_size(virtual_size or 0, "virtual size of the image"),
        architecture=_text(image.get("architecture")),
    )


def _use(given: t.Mapping[str, object], image: Image) -> Use:
    """What a machine will take.

    :raises GridError: ``invalid_size``, ``invalid_vcpus``, ``disk_too_small``.
    """
    virtual_size = image.virtual_size or 0
    disk = parse_size(given["disk"], "disk") if given.get("disk") is not None else virtual_size
    if disk < virtual_size:
        raise GridError(
            "disk_too_small",
            f"the disk has {format_size(disk)}, the image {image.name} needs {format_size(virtual_size)}",
            remedy=f"Order a disk of at least {format_size(virtual_size)}, or leave disk out to get the image's size",
        )
    vcpus = given.get("vcpus", 1)
    if isinstance(vcpus, bool) or not str(vcpus).isdecimal() or not 1 <= int(str(vcpus)) <= 2**16:
        raise GridError(
            "invalid_vcpus", f"{str(vcpus)[:60]!r} is not a number of virtual CPUs", remedy="Give a whole number from 1"
        )
    memory = parse_size(given.get("memory", 0), "memory")
    return Use(int(str(vcpus)), memory, disk, image.digest, image.size or 0)


def _texts(given: t.Mapping[str, object], field: str, form: str) -> frozenset[str]:
    values = given.get(field) or ()
    if not isinstance(values, (list, tuple, frozenset)):
        raise GridError(
            "invalid_order", f"{field} is not a list: {shorten(values)}", remedy=f"Give {field} as a list of text"
        )
    return frozenset(check_text(form, value) for value in values)


def slot_of(spec: t.Mapping[str, object], key: str, owner: str | None, use: Use, begun: str) -> Slot | None:
    """The reservation that a machine's order asks for; ``None`` without one, or with one that has ended.

    :param begun: when it begins if the order doesn't say.
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
    # The slice is per virtual CPU, as libvirt limits each of them.
    return Slot(key, owner, wanted["period"], wanted["slice"] * use.cpus, wanted.get("memory", use.memory), begin, end)


def read_demand(
    given: object,
    rows: t.Mapping[str, MachineRow],
    *,
    check: bool,
    homes: t.Mapping[str, str],
    begun: t.Callable[[str], str],
) -> Demand:
    """A machine from one entry of the option ``machines``, with what the store has of it.

    :param rows: the store's machines by uuid.
    :param homes: the home of each owner.
    :param begun: when the reservation of the machine with this key begins if its order doesn't say.
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
    image = read_image(given)
    key, use = uuid or f"name {given['name']}", _use(given, image)
    owner = row["owner"] if row else given.get("owner")
    return Demand(
        name=given["name"],
        key=key,
        use=use,
        architecture=str(given.get("architecture") or image.architecture or ARCHITECTURE),
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


def read_placed(row: MachineRow, use: Use) -> Demand:
    """A machine that is placed already, from its row."""
    spec = row["spec"]
    return Demand(
        name=row["name"],
        key=row["uuid"],
        use=use,
        at=row["provider"],
        exists=not row["future"],
        owner=row["owner"],
        tags=frozenset((spec and spec.get("tags")) or ()),
        affinity=frozenset((spec and spec.get("affinity")) or ()),
        anti_affinity=frozenset((spec and spec.get("anti_affinity")) or ()),
    )
