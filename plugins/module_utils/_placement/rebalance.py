# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rebalancing: a more even allocation with a limited number of moves (pure).

Each machine that ends up on another provider is one move. Choosing the best single move again and again gets stuck
where two machines should change places. Here all moves are chosen together, by simulated annealing, and then put into
an order in which each fits when its turn comes.
"""

from __future__ import annotations

import math
import random
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._placement.problem import Problem, State

Move = t.Tuple[int, int]
"""The number of an item, and the number of the room that it moves to."""

STEPS = 200000


class _Plan:
    """A state, and the items that are not in their original room (their home)."""

    def __init__(self, problem: Problem, current: t.Sequence[int], most: int) -> None:
        self.state = State(problem, current)
        self.home = list(current)
        self.most = most
        self.away: list[int] = []

    def move(self, number: int, target: int) -> None:
        """Move an item."""
        if self.state.where[number] != self.home[number]:
            self.away.remove(number)
        self.state.take(number)
        self.state.put(number, target)
        if target != self.home[number]:
            self.away.append(number)

    def trade(self, number: int, other: int) -> None:
        """Exchange two items; they needn't fit together in between."""
        room, there = self.state.where[number], self.state.where[other]
        for each in (number, other):
            if self.state.where[each] != self.home[each]:
                self.away.remove(each)
            self.state.take(each)
        for each, target in ((number, there), (other, room)):
            self.state.put(each, target)
            if target != self.home[each]:
                self.away.append(each)

    def allowed(self, number: int, target: int) -> bool:
        """Whether the item may move there without exceeding the number of moves."""
        new = self.state.where[number] == self.home[number] and target != self.home[number]
        return not new or len(self.away) < self.most


def _first(plan: _Plan, movable: t.Sequence[int]) -> bool:
    """Make the best single move; ``False`` if no move is an improvement."""
    state, best = plan.state, None
    least = state.uneven() - 1e-12
    for number in movable:
        source, net = state.where[number], state.net(number)
        for target in state.problem.items[number].cost:
            if target != source:
                value = state.uneven(source, target, net)
                if value < least and state.fits(number, target):
                    least, best = value, (number, target)
    if best is None:
        return False
    plan.move(*best)
    return True


def _accepts(plan: _Plan, after: float, dice: random.Random, heat: float) -> bool:
    before = plan.state.uneven()
    return after <= before or (heat > 0 and dice.random() < math.exp((before - after) / heat))


def _trade(plan: _Plan, dice: random.Random, heat: float) -> None:
    """Exchange an item that is away with another one that is away, or with one that is still in its home. The number of
    moves stays the same."""
    state = plan.state
    number = dice.choice(plan.away)
    room = state.where[number]
    if dice.random() < 0.5:
        other = dice.choice(plan.away)
        there = state.where[other]
        if there in (room, plan.home[number]) or room == plan.home[other]:
            return
    else:
        there = plan.home[number]
        staying = sorted(each for each in state.inside[there] if plan.home[each] == there)
        if not staying:
            return
        other = dice.choice(staying)
    items = state.problem.items
    if there not in items[number].cost or room not in items[other].cost:
        return
    if not _accepts(plan, state.uneven(there, room, state.net(other, number)), dice, heat):
        return
    state.take(number)
    state.take(other)
    fine = state.fits(number, there) and state.fits(other, room)
    state.put(number, room)
    state.put(other, there)
    if fine:
        plan.trade(number, other)


def _step(plan: _Plan, dice: random.Random, movable: t.Sequence[int], heat: float) -> None:
    """One attempt: a trade, or a move of an item. If that were a move too many, another item goes home."""
    state, back = plan.state, None
    if plan.away and dice.random() < 0.6:
        _trade(plan, dice, heat)
        return
    number = dice.choice(plan.away) if plan.away and dice.random() < 0.5 else dice.choice(movable)
    target = dice.choice(list(state.problem.items[number].cost)) if dice.random() < 0.9 else plan.home[number]
    source = state.where[number]
    if target == source:
        return
    if not plan.allowed(number, target):
        back = dice.choice(plan.away)
        there = state.where[back]
        # Most of these are much worse: estimate first.
        if state.uneven(source, target, state.net(number)) > state.uneven() + 20 * heat and dice.random() < 0.9:
            return
        if not state.fits(back, plan.home[back]):
            return
        before = state.uneven()
        plan.move(back, plan.home[back])
        after = state.uneven(source, target, state.net(number))
        fine = after <= before or (heat > 0 and dice.random() < math.exp((before - after) / heat))
    else:
        fine = _accepts(plan, state.uneven(source, target, state.net(number)), dice, heat)
    if fine and state.fits(number, target):
        plan.move(number, target)
    elif back is not None:
        plan.move(back, there)


def _ordered(problem: Problem, current: t.Sequence[int], wanted: t.Mapping[int, int]) -> list[Move]:
    """The moves in an order in which each fits. Moves that would need a detour are left out."""
    state, waiting, moves = State(problem, current), dict(wanted), []
    while waiting:
        able = [number for number, target in waiting.items() if state.fits(number, target)]
        if not able:
            break
        best = min(
            able, key=lambda number: (state.uneven(state.where[number], waiting[number], state.net(number)), number)
        )
        state.take(best)
        state.put(best, waiting[best])
        moves.append((best, waiting.pop(best)))
    return moves


def rebalance(
    problem: Problem, current: t.Sequence[int], max_moves: int, *, seed: int = 0, steps: int = STEPS
) -> list[Move]:
    """At most ``max_moves`` moves to a more even allocation, in an order in which each fits; none if there is no
    improvement.

    :param current: the room of each item.
    :param steps: the number of attempts; the same input and seed have the same answer.
    """
    plan, dice = _Plan(problem, current, max_moves), random.Random(seed)
    movable = [number for number, item in enumerate(problem.items) if len(item.cost) > 1]
    if max_moves < 1 or not movable:
        return []
    start = plan.state.uneven()
    pairs = sum(len(problem.items[number].cost) for number in movable)
    # The best single moves first, as long as trying all of them takes no longer than the annealing.
    while len(plan.away) < max_moves and pairs * (len(plan.away) + 1) <= steps * 2 and _first(plan, movable):
        pass
    best, answer = plan.state.uneven(), list(plan.state.where)
    # About the difference that one machine on a provider makes.
    heat = start / max(1, len(problem.rooms)) / 4
    for step in range(steps):
        _step(plan, dice, movable, heat * (1 - step / steps) ** 2)
        value = plan.state.uneven()
        if value < best - 1e-12:
            best, answer = value, list(plan.state.where)
    wanted = {number: room for number, room in enumerate(answer) if room != current[number]}
    return _ordered(problem, current, wanted) if best < start - 1e-12 else []
