# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Better answers than the greedy one, until a deadline (pure but for the clock, which only ever ends the search).

How much is tried is counted in steps and in CP-SAT's deterministic time, not in seconds, so that the same input and
seed have the same answer on every machine that is fast enough to do it before the deadline; one that isn't says so in
``cut``.
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
"""Of the ``within`` seconds, what is planned: about half of what a slow controller of today manages, so that the clock
rarely cuts."""

_WHOLE = 4000
"""Up to so many pairs of kind and room the whole problem is one model."""

_PART_ROOMS = 8
_PART_WORK = 0.15


@dataclasses.dataclass
class Told:
    """How the answer came about: ``engine``; ``cost`` in points of the greedy answer and of this one; of a problem that
    was given to CP-SAT as a whole, whether this is proven ``optimal`` and how far at most it is from CP-SAT's own bound
    (``gap``); ``cut`` by the clock."""

    engine: str = GREEDY
    cost: float = 0.0
    greedy: float = 0.0
    optimal: bool = False
    gap: float | None = None
    cut: bool = False


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
    """Move items and exchange them, with a temperature that falls; ``False`` where the clock cut it short. The best
    state is kept."""
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
    """The largest first, each into the fullest room that can hold it: not even, but little is left over."""
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
    """Move the item, or exchange it with one of another room; returns how to undo it, ``None`` where it can't be done,
    or where it would clearly cost more than ``most`` points."""
    source, target = state.where[number], dice.choice(rooms[number])
    if source == target:
        return None
    inside = sorted(state.inside[target])
    other = dice.choice(inside) if inside and source >= 0 and dice.random() < 0.7 else None
    if source >= 0:
        # Most attempts end here, before anything is moved. What images make up for isn't known before, only how much at
        # most.
        rise = state.uneven(source, target, state.net(number, other)) - state.uneven()
        costs = state.problem.items[number].cost
        linear = costs[target] - costs[source] - state.bringing(number, source)
        if other is not None:
            costs = state.problem.items[other].cost
            linear += costs.get(source, math.inf) - costs[target] - state.bringing(other, target)
        if linear + EVEN * len(state.problem.rooms) * rise > most:
            return None
    if other is None and not state.fits(number, target):
        return None
    if source >= 0:
        state.take(number)
    if other is not None:
        state.take(other)
    fits = state.fits(number, target)
    if fits:
        state.put(number, target)
        if other is not None:
            fits = state.fits(other, source)
            if not fits:
                state.take(number)
    if not fits:
        if other is not None:
            state.put(other, target)
        if source >= 0:
            state.put(number, source)
        return None
    if other is not None:
        state.put(other, source)

    def undo() -> None:
        state.take(number)
        if other is not None:
            state.take(other)
            state.put(other, target)
        if source >= 0:
            state.put(number, source)

    return undo


def _adopt(state: State, found: cp_sat.Found) -> bool:
    """Take CP-SAT's answer if it is truly one and better; its model rounds sizes, so that is seen here."""
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


def _whole(state: State, seed: int, work: float, clock: Clock, told: Told) -> None:
    rooms, numbers = range(len(state.problem.rooms)), range(len(state.problem.items))
    found = cp_sat.solve_part(state, rooms, numbers, seed=seed, work=work, seconds=clock.left)
    _adopt(state, found)
    told.cut |= not clock.left
    if found.where is not None:
        told.optimal = found.optimal
        told.gap = max(0.0, (found.objective - found.bound) / max(1.0, abs(found.objective)))


def _parts(state: State, dice: random.Random, work: float, clock: Clock) -> bool:
    """Give CP-SAT one part after the other: rooms drawn at random, the fullest and emptiest likelier, with all their
    items."""
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
) -> tuple[list[int], Told]:
    """A room for each item, at least as good as ``start``, and how it came about.

    :param library: whether OR-Tools may be used; without it, or where it isn't installed, there is local search only.
    """
    state, dice = State(problem, start), random.Random(seed)
    told = Told(LOCAL, greedy=state.cost)
    if -1 in start:
        state = min(state, _tightly(problem), key=lambda each: each.cost)
    with_library = library and cp_sat.available()
    kinds = len({item.alike for item in problem.items})
    share = 0.6 if with_library else 1.0
    told.cut |= not polish(state, dice, min(int(within * _STEPS_PER_SECOND * share), 2000 * len(problem.items)), clock)
    if with_library:
        told.engine = CP_SAT
        work = within * _WORK_PER_SECOND
        if kinds * len(problem.rooms) <= _WHOLE:
            _whole(state, seed, work, clock, told)
        else:
            told.cut |= not _parts(state, dice, work, clock)
    told.cost = State(problem, state.where).cost
    return state.where, told


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
) -> tuple[list[Answer], Told]:
    """An answer for each machine: greedy, then, with ``within`` seconds and something to choose, better ones.

    An improved answer is taken where it places no fewer machines.
    """
    board = Board(demands, providers, past, rules)
    answers = settle(demands, board)
    # What owners have floors for is left as the greedy answer has it: a floor is shared by whatever comes first.
    floored = frozenset().union(*(account.floored for account in board.accounts.values()))
    settled = dict(answers)
    wanted = bundles(demands, board, answers)
    fill(demands, board, answers, {})
    greedy = [answers[index] for index in range(len(demands))]
    free = [
        bundle
        for bundle in wanted
        if demands[bundle[0]].owner not in floored
        and (greedy[bundle[0]].error is None or greedy[bundle[0]].error.code == "no_provider")
    ]
    if not within or not free or (len(free) < 2 and greedy[free[0][0]].provider is not None):
        return greedy, Told()
    clock = clock or Clock(within)
    fixed = Board(demands, providers, past, rules)
    settled = settle(demands, fixed)
    for bundle in wanted:
        if bundle not in free:
            for index in bundle:
                if greedy[index].provider is not None:
                    fixed.hold(demands[index], t.cast(str, greedy[index].provider))
    problem = read(fixed, demands, free, weights)
    names = list(fixed.accounts)
    numbers = {name: number for number, name in enumerate(names)}
    start = [numbers.get(greedy[bundle[0]].provider or "", -1) for bundle in free]
    where, told = improve(problem, start, within=within, seed=seed, clock=clock, library=library)
    proposal = {demands[index].key: names[room] for bundle, room in zip(free, where) if room >= 0 for index in bundle}
    for bundle in wanted:
        if bundle not in free and greedy[bundle[0]].provider is not None:
            proposal.update({demands[index].key: t.cast(str, greedy[index].provider) for index in bundle})
    final = Board(demands, providers, past, rules)
    answers = settle(demands, final)
    fill(demands, final, answers, proposal)
    better = [answers[index] for index in range(len(demands))]
    if sum(answer.provider is not None for answer in better) < sum(answer.provider is not None for answer in greedy):
        return greedy, Told(cut=told.cut)
    return better, told
