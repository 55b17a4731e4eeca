# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role ``migrate`` computes between its tasks (pure). The filters' documentation is in ``plugins/filter/``.

Where a filter takes results of tasks, these are lists of what each host of the play registered.
"""

from __future__ import annotations

import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._migration import forwarding, plan, steps
from ansible_collections.virtuoso.grid.plugins.module_utils._migration.records import (
    Chosen,
    Facts,
    Forwarded,
    Move,
    Network,
    Notice,
    Placement,
    Registered,
    Result,
    Row,
    Settle,
    Settled,
    Wave,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._migration.results import by_host
from ansible_collections.virtuoso.grid.plugins.module_utils._units import parse_size

Results = t.Sequence[t.Optional[Registered]]


class Decision(t.TypedDict):
    """What is to be done, as the tasks take it."""

    settle: Settle
    waves: t.List[Wave]
    rows: t.List[Row]
    seen: t.List[Facts]
    settled: Wave


def moves(selected: t.Sequence[plan.Order], to: t.Mapping[str, str] | str | None, providers: t.Sequence[str]) -> Chosen:
    """Filter ``migrate_moves``."""
    return plan.moves(selected, to, providers)


def unsettled(results: Results, orders: t.Sequence[plan.Order], providers: t.Sequence[str]) -> Chosen:
    """Filter ``migrate_unsettled``."""
    return plan.unsettled(by_host(results), orders, providers)


def to_place(moves: t.Sequence[Move], results: Results, sites: t.Mapping[str, str]) -> list[Placement]:
    """Filter ``migrate_to_place``."""
    return plan.to_place(moves, by_host(results), sites)


def placed(moves: t.Sequence[Move], results: t.Sequence[Result]) -> Chosen:
    """Filter ``migrate_placed``."""
    return plan.placed(moves, results)


def decide(
    moves: t.Sequence[Move],
    results: Results,
    mode: str = "auto",
    dead: t.Sequence[str] = (),
    sites: t.Mapping[str, str] | None = None,
    speeds: t.Mapping[str, float] | None = None,
    reserve: int | str = 0,
    per_host: int | str = 4,
    per_link: int | str = 4,
    settled: t.Sequence[Row] = (),
) -> Decision:
    """Filter ``migrate_plan``."""
    options = plan.Options(mode, dead, sites or {}, speeds or {}, parse_size(reserve, "reserve"))
    found = plan.plan(moves, by_host(results), options)
    return {
        "settle": found["settle"],
        "waves": steps.waves(found["moves"], per_host, per_link),
        "rows": found["rows"],
        "seen": found["seen"],
        "settled": forwarding.settled(settled, found["seen"]),
    }


def settled(settle: Settle, first: Results, then: Results = ()) -> Settled:
    """Filter ``migrate_settled``."""
    return plan.settled(settle, by_host(first), by_host(then))


def arrived(wave: Wave, results: Results) -> Wave:
    """Filter ``migrate_arrived``."""
    return steps.arrived(wave, by_host(results))


def notices(wave: Wave, networks: t.Sequence[Network]) -> list[Notice]:
    """Filter ``migrate_notices``."""
    return forwarding.notices(wave, networks)


def forwarded(wave: Wave, networks: t.Sequence[Network], told: Results, announced: Results) -> Forwarded:
    """Filter ``migrate_forwarded``."""
    return forwarding.forwarded(wave, networks, by_host(told), by_host(announced))
