# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Orders: each entry is decided from what the store knows (pure): order, change or cancel; then all are written."""

from __future__ import annotations

import collections
import dataclasses
import functools
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._diff import changed_keys, diff
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._information.inventory import views
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store import query, schema, writing
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store.records import (
    HostRow,
    MachineRow,
    Values,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.spec import (
    Spec,
    check_text,
    parse_order,
    reference,
    shorten,
    split_image,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._run import Result, attempt
from ansible_collections.virtuoso.grid.plugins.module_utils._units import format_size

if t.TYPE_CHECKING:
    import sqlalchemy as sa

RESERVED_NAMES = frozenset({"all", "ungrouped", "localhost", "machines", "providers", "homes"})
"""Names that mean something else in an inventory."""


@dataclasses.dataclass
class Decision:
    """What becomes of one entry."""

    name: str
    action: str | None  # order, change or cancel; None if there is nothing to do
    row: MachineRow | None  # what the store knows of the machine
    spec: Spec | None  # the order as it will be; None if there will be none
    uuid: str | None = None

    def diff(self) -> dict[str, str]:
        """The order before and after, for ``--diff``."""
        before, after = self.row["spec"] if self.row else None, None if self.action == "cancel" else self.spec
        return diff(f"order of machine {self.name}", before, after)


@dataclasses.dataclass(frozen=True)
class Known:
    """What the decisions are based on."""

    machines: t.Mapping[str, MachineRow]  # by name
    hosts: t.Mapping[str, HostRow]  # by name
    images: t.Collection[str] | None  # names in the catalogue; None: names of images are not checked
    owner: str | None  # of machines that have none of their own
    inventory: t.Container[str]  # names of hosts and groups of the run's inventory, without the machines


def shown_name(entry: object, position: int) -> str:
    """The name of an entry in results; safe to print whatever the entry contains."""
    name = entry.get("name") if isinstance(entry, t.Mapping) else entry
    if not isinstance(name, str) or not name:
        return f"entry {position}"
    return name if len(name) <= 63 and name.isprintable() else shorten(name)


def places_of(names: t.Iterable[object]) -> dict[str, list[int]]:
    """The positions of each name in the list, counted from 1."""
    places: dict[str, list[int]] = {}
    for position, name in enumerate(names, 1):
        if isinstance(name, str):
            places.setdefault(name, []).append(position)
    return places


def check_twice(places: t.Sequence[int]) -> None:
    """:raises GridError: ``duplicate_name`` if a name is in the list more than once."""
    if len(places) > 1:
        raise GridError(
            "duplicate_name",
            f"entries {', '.join(map(str, places[:-1]))} and {places[-1]} of the list have the same name",
            tried="read the list",
            remedy="Give each machine a name of its own",
            entries=list(places),
        )


def check_image(image: str, known: t.Collection[str] | None) -> None:
    """:raises GridError: ``unknown_image`` for a name that the catalogue doesn't have. Digests and versions are not
    checked here."""
    name, dummy, digest = split_image(image)
    if (
        known is None
        or digest
        or image in known
        or name in known
        or any(entry.split("@")[0] == name for entry in known)
    ):
        return
    raise GridError(
        "unknown_image",
        f"there is no image {image}; the catalogue has {', '.join(sorted(known)) or 'none'}",
        remedy="Order one of these, or add the image to virtuoso_images",
        known=sorted(known),
    )


def _ordered(row: MachineRow) -> Spec:
    """The order of a machine that has one."""
    return t.cast(Spec, row["spec"])


def same_image(wanted: str, row: MachineRow) -> bool:
    """Whether an existing machine's image is the one that ``wanted`` names; a name without a version means any version.

    An order that still names the same image asks for no other one, even if the machine was rolled back meanwhile.
    """
    ordered = _ordered(row)["image"]
    if wanted == ordered:
        return True
    name, version, digest = split_image(wanted)
    actual = row["facts"].get("image")
    if digest:
        return digest in (actual and actual.get("digest"), ordered)
    is_name, is_version, dummy = split_image((actual and actual.get("name")) or ordered)
    return name == is_name and (version is None or is_version is None or version == is_version)


def _check_change(spec: Spec, row: MachineRow) -> Spec:
    """The new order of a machine that exists. Its fields ``image`` and ``start`` stay as they were first ordered.

    :raises GridError: ``cannot_change``.
    """
    ordered = _ordered(row)
    if not same_image(spec["image"], row):
        raise GridError(
            "cannot_change",
            f"the machine exists and is made from {ordered['image']}; its image can't become {spec['image']}",
            remedy="Order another machine with that image, or retire this one first (its disk is lost then)",
            field="image",
        )
    disk = row["disk"] or ordered["disk"]
    if spec["disk"] is not None and disk is not None and spec["disk"] < disk:
        raise GridError(
            "cannot_change",
            f"the machine exists and its disk has {format_size(disk)}; it can't shrink to {format_size(spec['disk'])}",
            remedy=f"Order at least {format_size(disk)}, or leave disk out to keep it as it is",
            field="disk",
        )
    # How it starts for the first time can't change any more. Orders of releases before 0.2 don't have the field.
    kept = t.cast(Spec, {key: value for key, value in spec.items() if key != "start"})
    if "start" in ordered:
        kept["start"] = ordered["start"]
    kept["image"] = ordered["image"]
    # An order without a disk keeps the one that there is, also if the store was rebuilt and knows its size.
    if spec["disk"] is None:
        kept["disk"] = ordered["disk"]
    return kept


def decide_present(entry: object, known: Known) -> Decision:
    """What to do for an entry with ``state=present``.

    :raises GridError: as :func:`parse_order`; ``reserved_name``, ``unknown_image``, ``name_taken``, ``cannot_change``.
    """
    spec = parse_order(entry, {"owner": known.owner} if known.owner else None)
    name = spec["name"]
    if name in RESERVED_NAMES:
        raise GridError(
            "reserved_name", f"{name} has a meaning of its own in an inventory", remedy="Choose another name"
        )
    if name in known.hosts:
        raise GridError("name_taken", f"a {known.hosts[name]['kind']} has this name", remedy="Choose another name")
    row = known.machines.get(name)
    if row is None:
        check_inventory(name, known.inventory)
        check_image(spec["image"], known.images)
        return Decision(name, "order", None, spec)
    if row["owner"] != spec["owner"]:
        raise GridError(
            "name_taken",
            f"a machine of this name is ordered by {row['owner']}; a machine's owner can't change to {spec['owner']}",
            remedy="Choose another name, or give the owner that ordered it; "
            "an order that is no longer wanted is cancelled with state=absent",
            owner=row["owner"],
        )
    if not row["future"]:
        spec = _check_change(spec, row)
    ordered = _ordered(row)
    if spec["image"] != ordered["image"]:
        check_image(spec["image"], known.images)
    return Decision(name, "change" if changed_keys(ordered, spec) else None, row, spec, row["uuid"])


def check_inventory(name: str, inventory: t.Container[str]) -> None:
    """A machine that has the name of a host would be reached in its place, and plays meant for that one with it.

    :param inventory: names of hosts and groups of the run's inventory, without the machines.
    :raises GridError: ``name_taken``.
    """
    if name in inventory:
        raise GridError(
            "name_taken",
            f"the inventory has a host or group {name}, and a machine of that name would be taken for it",
            remedy="Choose another name for the machine. To give it variables, write host_vars/NAME.yml; groups are"
            " made of its tags",
        )


def decide_absent(entry: object, known: Known) -> Decision:
    """What to do for an entry with ``state=absent``. Only its name counts, and its owner if given.

    :raises GridError: ``invalid_order``, ``invalid_name``, ``not_owner``, ``machine_exists``.
    """
    given = entry if isinstance(entry, t.Mapping) else {"name": entry}
    name = check_text("name", given.get("name"))
    row = known.machines.get(name)
    if row is None:
        return Decision(name, None, None, None)
    owner = given.get("owner") or known.owner
    if owner is not None and owner != row["owner"]:
        raise GridError(
            "not_owner",
            f"the machine is ordered by {row['owner']}, not by {owner}",
            remedy="Give the owner that ordered it",
            owner=row["owner"],
        )
    if not row["future"]:
        raise GridError(
            "machine_exists",
            f"the machine exists on {row['provider'] or 'a provider'}, so its order can't be cancelled",
            remedy="Remove the machine with the playbook virtuoso.grid.retire; its disk is lost then",
        )
    return Decision(name, "cancel", row, None, row["uuid"])


def result_of(decision: Decision) -> Result:
    """The result of one entry; ``uuid`` and ``reference`` are ``None`` for a new machine in check mode."""
    row, gone = decision.row, decision.spec is None
    state = "absent" if gone else views.state_of(row) if row else "future"
    image = None if gone or row is None or row["future"] else row["facts"].get("image")
    return {
        "changed": decision.action is not None,
        "actions": [decision.action] if decision.action else [],
        "uuid": decision.uuid,
        "reference": reference(decision.uuid) if decision.uuid else None,
        "state": state,
        "spec": decision.spec,
        "image": image,
        "provider": None if gone or row is None else row["provider"],
        "generation": views.generation_of(row) if row else 1,
    }


def serve(
    connection: sa.Connection,
    entries: t.Sequence[object],
    *,
    owner: str | None,
    images: t.Collection[str] | None,
    absent: bool,
    check: bool,
    inventory: t.Iterable[str] = (),
) -> tuple[list[Result], list[dict[str, str]]]:
    """Order, change or cancel; a bad entry fails alone. Returns results and diffs.

    :param check: decide only, write nothing.
    :param inventory: names of hosts and groups that a new machine can't have.
    """
    names = [entry.get("name") if isinstance(entry, t.Mapping) else entry if absent else None for entry in entries]
    places = places_of(names)
    texts = [name for name in places if "\0" not in name]
    known = Known(
        {row["name"]: row for row in query.machines(connection, names=texts)},
        {row["name"]: row for row in query.hosts(connection, names=texts)},
        images,
        owner,
        frozenset(inventory),
    )
    decisions: list[Decision] = []

    def decide(entry: object, name: object) -> Result:
        check_twice(places.get(name, ()) if isinstance(name, str) else ())
        decision = (decide_absent if absent else decide_present)(entry, known)
        if decision.action == "order" and not check:
            decision.uuid = writing.new_uuid()
        decisions.append(decision)
        return result_of(decision)

    verb = "cancel the order" if absent else "order the machine"
    results = [
        attempt(
            shown_name(entry, position),
            functools.partial(decide, entry, names[position - 1]),
            kind="machine",
            tried=verb,
        )
        for position, entry in enumerate(entries, 1)
    ]
    if not check:
        write(connection, decisions)
    return results, [decision.diff() for decision in decisions if decision.action]


def _sizes(spec: Spec) -> Values:
    return {"cpus": spec["vcpus"], "memory": spec["memory"], "disk": spec["disk"]}


def _changes(decisions: t.Iterable[Decision]) -> list[tuple[MachineRow, Spec]]:
    """The machine and its new order, of decisions that change one."""
    return [(decision.row, decision.spec) for decision in decisions if decision.row and decision.spec]


def write(connection: sa.Connection, decisions: t.Iterable[Decision]) -> None:
    """Write the decisions to the store."""
    by_action: dict[str | None, list[Decision]] = collections.defaultdict(list)
    for decision in decisions:
        by_action[decision.action].append(decision)
    time = writing.now()
    specs = {decision.uuid: decision.spec for decision in by_action["order"] if decision.uuid and decision.spec}
    rows = [{"uuid": uuid, "name": spec["name"], "kind": "machine", **_sizes(spec)} for uuid, spec in specs.items()]
    writing.add_hosts(connection, rows)
    writing.insert(
        connection,
        schema.ORDERS,
        [
            {"uuid": uuid, "owner": spec["owner"], "spec": spec, "generation": 1, "created": time, "updated": time}
            for uuid, spec in specs.items()
        ],
    )
    writing.add_futures(connection, rows)
    changes = _changes(by_action["change"])
    # The network of an existing machine is what its provider reports.
    moved = [each for each in changes if each[0]["future"] and _ordered(each[0]).get("network") != each[1]["network"]]
    plugged = {**specs, **{row["uuid"]: spec for row, spec in moved}}
    networks = writing.ensure_networks(connection, [spec["network"] for spec in plugged.values()])
    writing.plug(connection, [(uuid, networks[spec["network"]], None) for uuid, spec in plugged.items()])
    events: list[tuple[str, str, Values]] = [(uuid, "ordered", {}) for uuid in specs]
    for row, spec in changes:
        writing.update(connection, schema.ORDERS, row["uuid"], {"spec": spec, "updated": time})
        if row["future"]:
            writing.update(connection, schema.HOST, row["uuid"], _sizes(spec))
        events.append((row["uuid"], "changed", {"fields": changed_keys(_ordered(row), spec)}))
    writing.add_events(connection, events)
    writing.delete(connection, [decision.uuid for decision in by_action["cancel"] if decision.uuid])
