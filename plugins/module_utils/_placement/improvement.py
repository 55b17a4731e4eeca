# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Improving the greedy answer until a deadline, by local search and CP-SAT (pure, except for the clock).

The effort is counted in steps and in CP-SAT's deterministic time, not in seconds. So the same input and seed have the
same answer on every machine that is fast enough to finish before the deadline. One that isn't reports ``cut``.
"""

from __future__ import annotations

import dataclasses
import math
import random
import time
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._placement import cp_sat
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.board import Board, Past
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.greedy import Answer, bundles, fill, settle
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.model import Demand, Provider, Rules
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.problem import (
    EVEN,
    Problem,
    State,
    Weights,
    read,
)

GREEDY, LOCAL, CP_SAT = "greedy", "local search", "cp-sat"

_STEPS_PER_SECOND = 20000
_WORK_PER_SECOND = 0.3
"""The effort for each of the ``within`` seconds: about half of what a slow controller manages, so that the clock rarely
ends the search."""

_WHOLE = 4000
"""Up to so many pairs of kind and room, the whole problem is one model for CP-SAT."""

_PART_ROOMS = 8
_PART_WORK = 0.15


@dataclasses.dataclass
class Report:
    """How an answer was found; costs in points, see :mod:`problem`."""

    engine: str = GREEDY
    cost: float = 0.0
    greedy: float = 0.0  # cost of the greedy answer
    optimal: bool = False  # whether CP-SAT has proven that there is no better one
    gap: float | None = None  # the distance to CP-SAT's bound as a part of the cost; None if it isn't known
    cut: bool = False  # whether the clock ended the search


class Clock:
    """The deadline."""

    def __init__(self, seconds: float, now: t.Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._end = now() + seconds

    @property
    def left(self) -> float:
        """Seconds to the deadline, 0 after it."""
        return max(0.0, self._end - self._now())


def polish(state: State, dice: random.Random, steps: int, clock: Clock) -> bool:
    """Simulated annealing: move and exchange items at a falling temperature, and keep the best state.

    :returns: ``False`` if the clock ended it.
    """
    items, placed = state.problem.items, len(state.problem.items)
    if not placed or steps <= 0:
        return True
    movable = [number for number, item in enumerate(items) if item.cost]
    rooms = {number: list(items[number].cost) for number in movable}
    if not movable:
        return True
    cost = best = state.cost
    answer = list(state.where)
    heat = max(1.0, abs(best - state.linear) / max(1, placed)) / 4
    for step in range(steps):
        if step % 256 == 0 and not clock.left:
            break
        warm = heat * (1 - step / steps) ** 2
        undo = _try(state, dice.choice(movable), dice, rooms, 4 * warm)
        if undo is None:
            continue
        after = state.cost
        if after <= cost or (warm > 0 and dice.random() < math.exp(min(0.0, (cost - after) / warm))):
            cost = after
            if cost < best - 1e-6:
                best, answer = cost, list(state.where)
        else:
            undo()
    else:
        step = steps
    _assume(state, answer)
    return step == steps


def _tightly(problem: Problem) -> State:
    """The largest items first, each into the fullest room that can hold it: uneven, but it places the most."""
    state = State(problem, [-1] * len(problem.items))
    memory = sum(room.total[0] for room in problem.rooms) or 1.0
    cpus = sum(room.total[1] for room in problem.rooms) or 1.0
    sizes = {number: max(item.memory / memory, item.cpus / cpus) for number, item in enumerate(problem.items)}
    for number in sorted(sizes, key=lambda number: (-sizes[number], number)):
        rooms = [room for room in problem.items[number].cost if state.fits(number, room)]
        if rooms:
            state.put(number, min(rooms, key=lambda room: (state.free[room][1], room)))
    return state


def _assume(state: State, answer: t.Sequence[int]) -> None:
    """Move items until each is in its room of the answer."""
    moving = [number for number, room in enumerate(answer) if room != state.where[number]]
    for number in moving:
        if state.where[number] >= 0:
            state.take(number)
    for number in moving:
        if answer[number] >= 0:
            state.put(number, answer[number])


def _try(
    state: State, number: int, dice: random.Random, rooms: t.Mapping[int, list[int]], most: float
) -> t.Callable[[], None] | None:
    """Move the item to a random room, or exchange it with an item there.

    :param rooms: the rooms that may hold each item.
    :param most: what it may cost more, in points.
    :returns: how to undo it; ``None`` if it isn't possible, or would clearly cost more than ``most``.
    """
    source, target = state.where[number], dice.choice(rooms[number])
    if source == target:
        return None
    inside = sorted(state.inside[target])
    other = dice.choice(inside) if inside and source >= 0 and dice.random() < 0.7 else None
    # Most attempts end here, before anything is moved.
    if source >= 0 and _least_rise(state, number, target, other) > most:
        return None
    return _move(state, number, target) if other is None else _exchange(state, number, other)


def _least_rise(state: State, number: int, target: int, other: int | None) -> float:
    """The least that the cost rises when the item goes to the room, in exchange for ``other`` if that is given.

    Image transfers that are not needed any more could lower the cost; this assumes that all of them do.
    """
    source, items = state.where[number], state.problem.items
    uneven = state.uneven(source, target, state.net(number, other)) - state.uneven()
    linear = items[number].cost[target] - items[number].cost[source] - state.bringing(number, source)
    if other is not None:
        costs = items[other].cost
        linear += costs.get(source, math.inf) - costs[target] - state.bringing(other, target)
    return linear + EVEN * len(state.problem.rooms) * uneven


def _move(state: State, number: int, target: int) -> t.Callable[[], None] | None:
    """Move the item to the room; returns how to undo it, ``None`` if it doesn't fit."""
    source = state.where[number]
    if not state.fits(number, target):
        return None
    if source >= 0:
        state.take(number)
    state.put(number, target)

    def undo() -> None:
        state.take(number)
        if source >= 0:
            state.put(number, source)

    return undo


def _exchange(state: State, number: int, other: int) -> t.Callable[[], None] | None:
    """Let two items change rooms; returns how to undo it, ``None`` if they don't fit."""
    source, target = state.where[number], state.where[other]

    def restore() -> None:
        state.put(other, target)
        state.put(number, source)

    def undo() -> None:
        state.take(number)
        state.take(other)
        restore()

    state.take(number)
    state.take(other)
    if state.fits(number, target):
        state.put(number, target)
        if state.fits(other, source):
            state.put(other, source)
            return undo
        state.take(number)
    restore()
    return None


def _adopt(state: State, found: cp_sat.Found) -> bool:
    """Take CP-SAT's answer if it is valid and better. This has to be checked because its model rounds sizes."""
    if found.where is None:
        return False
    before, cost = list(state.where), state.cost
    moving = [number for number, room in found.where.items() if room != state.where[number]]
    for number in moving:
        if state.where[number] >= 0:
            state.take(number)
    good = True
    for number in moving:
        room = found.where[number]
        if room >= 0 and good:
            good = state.fits(number, room)
            if good:
                state.put(number, room)
    if good and state.cost < cost - 1e-6:
        return True
    _assume(state, before)
    return False


def _whole(state: State, seed: int, work: float, clock: Clock, report: Report) -> None:
    """Give CP-SAT the whole problem."""
    rooms, numbers = range(len(state.problem.rooms)), range(len(state.problem.items))
    found = cp_sat.solve_part(state, rooms, numbers, seed=seed, work=work, seconds=clock.left)
    _adopt(state, found)
    report.cut |= not clock.left
    if found.where is not None:
        report.optimal = found.optimal
        report.gap = max(0.0, (found.objective - found.bound) / max(1.0, abs(found.objective)))


def _parts(state: State, dice: random.Random, work: float, clock: Clock) -> bool:
    """Give CP-SAT one part after the other: random rooms, more often the fullest and emptiest, with all their items.

    :returns: ``False`` if the clock ended it.
    """
    number = len(state.problem.rooms)
    while work > 0:
        if not clock.left:
            return False
        order = sorted(range(number), key=lambda room: _fullness(state, room))
        ends = order[: max(2, number // 10)] + order[-max(2, number // 10) :]
        half = dice.sample(ends, min(len(ends), _PART_ROOMS // 2))
        rooms = sorted({*half, *dice.sample(range(number), min(number, _PART_ROOMS - len(half)))})
        items = [each for each, room in enumerate(state.where) if room in rooms or room < 0]
        seed = dice.randrange(2**31)
        found = cp_sat.solve_part(state, rooms, items, seed=seed, work=min(work, _PART_WORK), seconds=clock.left)
        _adopt(state, found)
        work -= max(found.work, _PART_WORK / 20)
    return True


def _fullness(state: State, room: int) -> float:
    total = state.problem.rooms[room].total
    return sum(
        weight * amount / whole for weight, amount, whole in zip(state.problem.weights, state.amounts[room], total)
    )


def improve(
    problem: Problem, start: t.Sequence[int], *, within: float, seed: int, clock: Clock, library: bool = True
) -> tuple[list[int], Report]:
    """A room for each item, at least as good as ``start``, and how it was found.

    :param start: the room of each item, -1 for none.
    :param library: whether OR-Tools may be used if it is installed. Without it there is local search only.
    """
    state, dice = State(problem, start), random.Random(seed)
    report = Report(LOCAL, greedy=state.cost)
    if -1 in start:
        state = min(state, _tightly(problem), key=lambda each: each.cost)
    with_library = library and cp_sat.available()
    kinds = len({item.alike for item in problem.items})
    share = 0.6 if with_library else 1.0
    steps = min(int(within * _STEPS_PER_SECOND * share), 2000 * len(problem.items))
    report.cut |= not polish(state, dice, steps, clock)
    if with_library:
        report.engine = CP_SAT
        work = within * _WORK_PER_SECOND
        if kinds * len(problem.rooms) <= _WHOLE:
            _whole(state, seed, work, clock, report)
        else:
            report.cut |= not _parts(state, dice, work, clock)
    report.cost = State(problem, state.where).cost
    return state.where, report


def _worth_it(free: t.Sequence[t.Sequence[int]], greedy: t.Sequence[Answer]) -> bool:
    """Whether there is anything to choose: several bundles, or one that has no provider yet."""
    return len(free) > 1 or (len(free) == 1 and greedy[free[0][0]].provider is None)


def _places(demands: t.Sequence[Demand], answers: t.Sequence[Answer], bundle: t.Iterable[int]) -> dict[str, str]:
    """The providers of those machines of the bundle that have one, by key."""
    providers = {demands[index].key: answers[index].provider for index in bundle}
    return {key: name for key, name in providers.items() if name is not None}


def place(
    demands: t.Sequence[Demand],
    providers: t.Sequence[Provider],
    past: Past,
    rules: Rules = Rules(),
    *,
    within: float | None = None,
    seed: int = 0,
    weights: Weights = Weights(),
    library: bool = True,
    clock: Clock | None = None,
) -> tuple[list[Answer], Report]:
    """An answer for each machine, and how it was found.

    The greedy answer is improved for ``within`` seconds if there is something to choose. An improved answer counts only
    if it places no fewer machines.
    """
    board = Board(demands, providers, past, rules)
    answers = settle(demands, board)
    # Machines of owners with floors keep their greedy answer: a floor is used up by whatever comes first.
    floored = frozenset().union(*(account.floored for account in board.accounts.values()))
    wanted = bundles(demands, board, answers)
    fill(demands, board, answers, {})
    greedy = [answers[index] for index in range(len(demands))]
    free = []
    for bundle in wanted:
        error = greedy[bundle[0]].error
        if demands[bundle[0]].owner not in floored and (error is None or error.code == "no_provider"):
            free.append(bundle)
    if not within or not _worth_it(free, greedy):
        return greedy, Report()
    clock = clock or Clock(within)
    fixed = Board(demands, providers, past, rules)
    settle(demands, fixed)
    proposal: dict[str, str] = {}
    for bundle in wanted:
        if bundle not in free:
            places = _places(demands, greedy, bundle)
            proposal.update(places)
            for index in bundle:
                if demands[index].key in places:
                    fixed.hold(demands[index], places[demands[index].key])
    names = list(fixed.accounts)
    numbers = {name: number for number, name in enumerate(names)}
    start = [numbers.get(greedy[bundle[0]].provider or "", -1) for bundle in free]
    problem = read(fixed, demands, free, weights)
    where, report = improve(problem, start, within=within, seed=seed, clock=clock, library=library)
    proposal.update(
        {demands[index].key: names[room] for bundle, room in zip(free, where) if room >= 0 for index in bundle}
    )
    final = Board(demands, providers, past, rules)
    answers = settle(demands, final)
    fill(demands, final, answers, proposal)
    better = [answers[index] for index in range(len(demands))]
    if sum(answer.provider is not None for answer in better) < sum(answer.provider is not None for answer in greedy):
        return greedy, Report(cut=report.cut)
    return better, report
