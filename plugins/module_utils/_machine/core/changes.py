# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When a change of a machine takes effect: at once, at its next start, or never (pure).

:data:`RULES` is the one place that says so, and :func:`when` the function. The table in ``docs/machines.md`` is
    :func:`table`; a test compares them.
"""

from __future__ import annotations

import dataclasses
import typing as t

Model = t.Dict[str, t.Any]

LIVE, NEXT_START, NOW, NEVER = "live", "next start", "now", "never"

ALWAYS = ""


@dataclasses.dataclass(frozen=True)
class Rule:
    """When one field changes on a running machine, and how an order calls it.

    ``live`` says in words under which condition it is live (:data:`ALWAYS`, or ``None`` for not at all), and ``can`` is
    that condition, of what the running machine has and the value that is wanted. ``asks`` tells whether the guest must
    do its part, which one that stands still can't.
    """

    field: str
    live: t.Optional[str] = None
    can: t.Callable[[Model, t.Any], bool] = lambda live, want: True
    asks: t.Callable[[Model, t.Any], bool] = lambda live, want: False
    ordered: str = ""


def _processors(live: Model, want: t.Any) -> bool:
    if want >= live["vcpus"]:
        return bool(want <= live["vcpus_max"])
    # QEMU 7.2 was seen to crash when it emulates a processor that is taken out.
    return bool(live["virtualization"] == "kvm" and live["vcpus_removable"] >= live["vcpus"] - want)


def _memory(live: Model, want: t.Any) -> bool:
    return bool(want <= live["memory_ceiling"] and (want >= live["memory_base"] or live["balloon"]))


def _cards(live: Model, want: t.Any) -> bool:
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
        "not any more: told in `ignored`",
        "before the first start; after it not any more: told in `ignored`",
    ),
    (
        "`image`, `name`",
        "never: `cannot_change`",
        "never: `cannot_change`; to another version by [rolling back](images.md#roll-back)",
    ),
)
"""What isn't a field of the domain: as the docs show it."""

_BOUNDS = ("vcpus_max", "memory_max")
"""A bound that is lower after the next start keeps nobody from anything that was asked for."""


def when(field: str, live: t.Optional[Model], want: t.Any, awake: bool = True) -> str:
    """When a field that is to be ``want`` becomes so.

    :param live: what the running machine has, ``None`` where it doesn't run.
    :param awake: whether its guest is there to do its part: it runs, and will go on running.
    """
    if live is None:
        return NOW
    rule = BY_FIELD[field]
    possible = rule.live is not None and rule.can(live, want) and (awake or not rule.asks(live, want))
    return LIVE if possible else NEXT_START


def asks(field: str, live: t.Optional[Model], want: t.Any) -> bool:
    """Whether the guest must do its part in a change that is live."""
    return live is not None and BY_FIELD[field].asks(live, want)


def ordered(field: str, wanted: Model, live: t.Optional[Model]) -> bool:
    """Whether the order says anything of a field; what it says nothing of stays as it is."""
    want = wanted.get(field)
    if field in ("vcpus_max", "autostart"):
        return want is not None
    if field != "display_password":
        return True
    return want is not None and wanted["display"] != "none"


def late(config: Model, live: Model) -> list[tuple[str, t.Any]]:
    """What a machine that was hibernated doesn't have yet of its configuration and can have at once."""
    return [
        (rule.field, config[rule.field])
        for rule in RULES
        if live[rule.field] != config[rule.field] and when(rule.field, live, config[rule.field]) == LIVE
    ]


def kept(config: Model, then: Model) -> Model:
    """What a machine that goes back to its memory of an earlier time has at once of its configuration of today: limits
    above all, and a display's password.

    :param then: what it had.
    """
    always = [rule.field for rule in RULES if rule.live == ALWAYS and rule.field != "autostart"]
    return {
        field: config[field]
        for field in always
        if config[field] != then[field] and (config[field] is not None or field != "display_password")
    }


def pending(config: Model, live: t.Optional[Model]) -> dict[str, list[t.Any]]:
    """What a running machine has and what it will have after its next start, where that was asked for and is not yet
    so."""
    if live is None:
        return {}
    waiting = {}
    for rule in RULES:
        now, then = live[rule.field], config[rule.field]
        lower = rule.field in _BOUNDS and (then or 0) < (now or 0)
        if rule.live != ALWAYS and now != then and not lower:
            waiting[rule.field] = [now, then]
    if "vcpus" in waiting:
        # It brings its bound along.
        waiting.pop("vcpus_max", None)
    return waiting


def table() -> list[str]:
    """The rows of the table in the docs: field, on a running machine, on a stopped one."""
    rows = []
    for rule in RULES:
        kept = "at the next start; told in `pending` and `restart_required` until then"
        running = (
            kept
            if rule.live is None
            else "live and kept"
            if rule.live == ALWAYS
            else f"live {rule.live}; otherwise at the next start"
        )
        rows.append((rule.ordered or f"`{rule.field}`", running, "at once"))
    return [f"| {' | '.join(row)} |" for row in (*rows, *OTHERS)]
