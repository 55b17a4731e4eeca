# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A more even allocation with a bounded number of moves."""

from __future__ import annotations

import random

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.problem import Item, Problem, Room, State
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.rebalance import rebalance


def problem(sizes, rooms, memory=100, allowed=None, weights=(1.0, 1.0, 0.0)):
    """Items of (memory, cpus) in rooms that are all alike."""
    items = [
        Item(
            (f"m{number}",),
            cpus,
            size,
            0,
            (),
            (),
            dict.fromkeys((allowed or {}).get(number, range(rooms)), 0.0),
            False,
            frozenset(),
        )
        for number, (size, cpus) in enumerate(sizes)
    ]
    one = [memory, (0.0, 0.0, 0.0), (float(memory), 100.0, 1.0)]
    made = [
        Room(f"p{number}", 100, one[0], 100, one[1], one[2], frozenset(), False, 1e8, [], []) for number in range(rooms)
    ]
    return Problem(items, made, weights)


def carried_out(given, current, moves):
    """The allocation after the moves, each of which fits when it is done."""
    state = State(given, current)
    for number, target in moves:
        assert state.fits(number, target) and state.where[number] != target
        state.take(number)
        state.put(number, target)
    return state


def random_problem(seed, rooms=8, machines=40):
    dice = random.Random(seed)
    given = problem([(dice.choice([1, 2, 4, 8]), dice.choice([1, 2, 4])) for dummy in range(machines)], rooms)
    return given, [dice.randrange(rooms) for dummy in range(machines)]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("most", [1, 3, 10])
def test_more_even_and_never_more_moves(seed, most):
    given, current = random_problem(seed)
    moves = rebalance(given, current, most, steps=4000)
    after = carried_out(given, current, moves)
    assert 0 < len(moves) <= most and after.uneven() < State(given, current).uneven()
    assert moves == rebalance(given, current, most, steps=4000)


def best_of_singles(given, current, most):
    """The best single move, then the next best: what is to be beaten."""
    state = State(given, current)
    for dummy in range(most):
        options = [
            (state.uneven(state.where[number], target, state.net(number)), number, target)
            for number in range(len(given.items))
            for target in given.items[number].cost
            if target != state.where[number] and state.fits(number, target)
        ]
        value, number, target = min(options)
        if value >= state.uneven():
            break
        state.take(number)
        state.put(number, target)
    return state.uneven()


def test_moves_chosen_together_beat_the_best_single_ones():
    better = 0
    for seed in range(4):
        given, current = random_problem(seed)
        mine = carried_out(given, current, rebalance(given, current, 6, steps=20000)).uneven()
        singles = best_of_singles(given, current, 6)
        assert mine <= singles + 1e-12
        better += mine < singles - 1e-9
    assert better >= 3


def test_nothing_is_moved_without_a_gain_or_without_moves():
    even = problem([(4, 1)] * 4, 4)
    assert rebalance(even, [0, 1, 2, 3], 5, steps=500) == []
    assert rebalance(even, [0, 0, 0, 0], 0) == []


def test_a_full_room_takes_nothing_before_something_leaves():
    """The order of the moves makes room: 60 and 60 can't pass each other where 100 is all."""
    given = problem([(60, 1), (30, 1), (30, 1), (10, 1)], 3)
    moves = rebalance(given, [0, 0, 1, 0], 3, steps=4000)
    carried_out(given, [0, 0, 1, 0], moves)
    assert moves


def test_an_item_goes_only_where_it_may():
    given = problem([(10, 1)] * 6, 3, allowed={number: [0, 1] for number in range(5)})
    moves = rebalance(given, [0] * 6, 6, steps=4000)
    assert moves and all(target != 2 or number == 5 for number, target in moves)
