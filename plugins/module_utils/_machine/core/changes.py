# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When a change of a machine's field takes effect: at once, at its next start, or never (pure).

:data:`RULES` says so for each field, and :func:`when` for one change. :func:`table` makes the table in
``docs/machines.md`` from the rules; a test compares the two.
"""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.records import DomainModel, MachineModel
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.records import Pending, Wanted

Value = t.Any
"""The value of a field. ``Any``, because each rule gets that of its own field."""

LIVE, NEXT_START, NOW, NEVER = "live", "next start", "now", "never"

ALWAYS = ""
"""A field changes on a running machine without a condition."""


@dataclasses.dataclass(frozen=True)
class Rule:
    """When one field changes on a running machine, and its name in an order.

    ``live`` is the condition in words under which it changes at once: :data:`ALWAYS`, or ``None`` for never. ``can`` is
    the same condition as a function of what the running machine has and the wanted value. ``asks`` says whether the
    guest must take part, which a paused one can't.
    """

    field: str
    live: t.Optional[str] = None
    can: t.Callable[[MachineModel, Value], bool] = lambda live, want: True
    asks: t.Callable[[MachineModel, Value], bool] = lambda live, want: False
    ordered: str = ""


def _processors(live: MachineModel, want: Value) -> bool:
    if want >= live["vcpus"]:
        return bool(want <= live["vcpus_max"])
    # With emulated processors QEMU 7.2 crashed when one was taken out.
    return bool(live["virtualization"] == "kvm" and live["vcpus_removable"] >= live["vcpus"] - want)


def _memory(live: MachineModel, want: Value) -> bool:
    return bool(want <= live["memory_ceiling"] and (want >= live["memory_base"] or live["balloon"]))


def _cards(live: MachineModel, want: Value) -> bool:
    return len(set(want) - set(live["extra_networks"])) <= live["free_ports"]


RULES: t.Tuple[Rule, ...] = (
    Rule("vcpus", "up to `vcpus_max`, and with KVM down again", _processors, lambda live, want: want < live["vcpus"]),
    Rule("vcpus_max"),
    Rule("memory", "up to what it was started with, or `memory_max`, and down", _memory, lambda live, want: True),
    Rule("memory_max"),
    Rule("network"),
    Rule(
        "extra_networks",
        "while it has free slots",
        _cards,
        lambda live, want: bool(set(live["extra_networks"]) - set(want)),
    ),
    Rule("boot"),
    Rule("display"),
    Rule("display_password", ALWAYS, ordered="display's password (`display_passwords`)"),
    Rule("cpu_shares", ALWAYS, ordered="`performance.cpu_shares`"),
    Rule("cpu_limit", ALWAYS, ordered="`performance.reservation` (domain's `cpu_limit`)"),
    Rule("disk_io", ALWAYS, ordered="`performance.disk_io`"),
    Rule("description", ALWAYS),
    Rule("autostart", ALWAYS),
)
"""The fields of a domain."""

BY_FIELD: t.Dict[str, Rule] = {rule.field: rule for rule in RULES}

OTHERS = (
    ("`disk`, larger", "live; its file system at its next boot, or at once with `grow_filesystem`", "at once"),
    ("`disk`, smaller", "never: `cannot_shrink`", "never: `cannot_shrink`"),
    ("`owner`, `goal`, `tags`, `site`, `generation`", "live", "at once"),
    (
        "`packages`, `users`, `address`",
        "not any more: reported in `ignored`",
        "before the first start; after it not any more: reported in `ignored`",
    ),
    (
        "`image`, `name`",
        "never: `cannot_change`",
        "never: `cannot_change`; to another version by [rolling back](images.md#roll-back)",
    ),
)
"""The rows of the table in the docs for what isn't a field of the domain."""

_MAXIMA = ("vcpus_max", "memory_max")
"""Lowering a maximum never needs a restart: nothing that was ordered depends on it."""


def when(field: str, live: t.Optional[MachineModel], want: Value, awake: bool = True) -> str:
    """When a change of a field to ``want`` takes effect: LIVE, NEXT_START or NOW.

    :param live: what the running machine has, ``None`` where it doesn't run.
    :param awake: whether the guest can take part: it runs, and will go on running.
    """
    if live is None:
        return NOW
    rule = BY_FIELD[field]
    possible = rule.live is not None and rule.can(live, want) and (awake or not rule.asks(live, want))
    return LIVE if possible else NEXT_START


def asks(field: str, live: t.Optional[MachineModel], want: Value) -> bool:
    """Whether the guest must take part in a change that is live."""
    return live is not None and BY_FIELD[field].asks(live, want)


def ordered(field: str, wanted: Wanted) -> bool:
    """Whether the order says anything of a field. A field that it doesn't mention stays as it is."""
    values: t.Mapping[str, object] = wanted
    want = values.get(field)
    if field in ("vcpus_max", "autostart"):
        return want is not None
    if field != "display_password":
        return True
    return want is not None and wanted["display"] != "none"


def to_catch_up(config: MachineModel, live: MachineModel) -> list[tuple[str, Value]]:
    """The changes to make at once to a machine that was just woken: fields of its configuration, with their values,
    that changed while it was hibernated."""
    old: t.Mapping[str, Value] = live
    new: t.Mapping[str, Value] = config
    return [
        (rule.field, new[rule.field])
        for rule in RULES
        if old[rule.field] != new[rule.field] and when(rule.field, live, new[rule.field]) == LIVE
    ]


def to_keep(config: DomainModel, then: DomainModel) -> dict[str, Value]:
    """The fields, with their values, that a machine keeps when it goes back to a snapshot with memory: those that can
    always change at once, above all its limits and its display's password.

    :param config: its configuration now.
    :param then: what it had when the snapshot was taken.
    """
    old: t.Mapping[str, Value] = then
    new: t.Mapping[str, Value] = config
    always = [rule.field for rule in RULES if rule.live == ALWAYS and rule.field != "autostart"]
    return {
        field: new[field]
        for field in always
        if new[field] != old[field] and (new[field] is not None or field != "display_password")
    }


def pending(config: MachineModel, live: t.Optional[MachineModel]) -> Pending:
    """The fields that change at a running machine's next start, each as [value now, value then]."""
    if live is None:
        return {}
    waiting: Pending = {}
    old: t.Mapping[str, Value] = live
    new: t.Mapping[str, Value] = config
    for rule in RULES:
        now, then = old[rule.field], new[rule.field]
        lower = rule.field in _MAXIMA and (then or 0) < (now or 0)
        if rule.live != ALWAYS and now != then and not lower:
            waiting[rule.field] = [now, then]
    if "vcpus" in waiting:
        # It brings its maximum along.
        waiting.pop("vcpus_max", None)
    return waiting


def table() -> list[str]:
    """The rows of the table in the docs: field, on a running machine, on a stopped one."""
    rows = []
    for rule in RULES:
        later = "at the next start; reported in `pending` and `restart_required` until then"
        running = (
            later
            if rule.live is None
            else "live and kept"
            if rule.live == ALWAYS
            else f"live {rule.live}; otherwise at the next start"
        )
        rows.append((rule.ordered or f"`{rule.field}`", running, "at once"))
    return [f"| {' | '.join(row)} |" for row in (*rows, *OTHERS)]
