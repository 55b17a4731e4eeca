# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The exact solver: the problem, or a part of it, as a model for OR-Tools' CP-SAT (no I/O; needs the library).

Items that are alike are counted, not named: a variable says how many of a kind a room gets, so a thousand machines of a
few sizes are a small model. Evenness is a sum of squared shares, each square bounded from below by tangents. Its
weights are chosen so that near the current answer it falls when the standard deviations fall.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import math
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._placement.problem import (
    EVEN,
    OPENING,
    SECOND,
    UNPLACED,
    Item,
    State,
)

Library = t.Any
"""A module or object of OR-Tools, which may not be installed."""

Variable = Library
"""A variable of a model, or a sum of them."""

cp_model: Library = None
"""The module of that name, loaded at its first use: loading takes longer than most placements."""


def available() -> bool:
    """Whether OR-Tools is installed."""
    return importlib.util.find_spec("ortools") is not None


def _load() -> None:
    global cp_model  # pylint: disable=global-statement
    if cp_model is None:
        cp_model = importlib.import_module("ortools.sat.python.cp_model")


_MIB = 2**20
_MILLI = 1000
_TANGENTS = 16
_LEAST_DEVIATION = 0.02
"""Below this a dimension counts as even: near 0 the slope of a square root is unbounded and would hide other costs."""


@dataclasses.dataclass(frozen=True)
class Found:
    """CP-SAT's answer."""

    where: dict[int, int] | None  # the room of each item of the part; None if it found no answer
    optimal: bool  # whether it is proven to be the best
    objective: float
    bound: float  # on the objective
    work: float  # deterministic time


def _kinds(state: State, numbers: t.Iterable[int]) -> list[list[int]]:
    """The items grouped by what is alike."""
    kinds: dict[t.Hashable, list[int]] = {}
    for number in numbers:
        kinds.setdefault(state.problem.items[number].alike, []).append(number)
    return list(kinds.values())


class _Model:
    """A model of some rooms and some items; all other items stay where they are."""

    def __init__(self, state: State, rooms: t.Sequence[int], kinds: t.Sequence[t.Sequence[int]]) -> None:
        self.state = state
        self.rooms = list(rooms)
        self.kinds = kinds
        self.model = cp_model.CpModel()
        self.counts: dict[tuple[int, int], Variable] = {}  # how many of a kind a room gets
        self.terms: list[tuple[Variable, int]] = []  # of the objective
        self.constant = 0.0
        moving = [number for kind in kinds for number in kind]
        self.base = State(
            state.problem, [-1 if number in set(moving) else room for number, room in enumerate(state.where)]
        )
        # If every item has a room already, each must have one again: a far easier model than one with a price on that.
        self.price = UNPLACED if any(state.where[number] < 0 for number in moving) else 0.0
        self._assign()
        for room in self.rooms:
            self._capacity(room)
            self._brought(room)
            self._opened(room)
        self._fences()
        self._even()
        self.model.minimize(sum(coefficient * variable for variable, coefficient in self.terms) + round(self.constant))

    def _item(self, kind: int) -> Item:
        return self.state.problem.items[self.kinds[kind][0]]

    def _assign(self) -> None:
        for kind, numbers in enumerate(self.kinds):
            item, rooms = self._item(kind), []
            for room in self.rooms:
                if room in item.cost:
                    most = 1 if item.fence else len(numbers)
                    count = self.model.new_int_var(0, most, f"n{kind}_{room}")
                    self.counts[kind, room] = count
                    rooms.append(count)
                    self.model.add_hint(count, sum(self.state.where[number] == room for number in numbers))
                    self.terms.append((count, round(item.cost[room] - self.price)))
            self.model.add(sum(rooms) <= len(numbers) if self.price else sum(rooms) == len(numbers))
            self.constant += self.price * len(numbers)

    def _here(self, room: int) -> list[tuple[int, Variable]]:
        return [(kind, self.counts[kind, room]) for kind in range(len(self.kinds)) if (kind, room) in self.counts]

    def _capacity(self, room: int) -> None:
        here, base = self._here(room), self.base
        cpus, memory, dummy = base.free[room]
        self._bounded(cpus, [(count, self._item(kind).cpus) for kind, count in here])
        self._bounded(memory // _MIB, [(count, -(-self._item(kind).memory // _MIB)) for kind, count in here])
        for moment, rate in enumerate(base.rates[room]):
            reserved = [(count, *self._reserved(kind, moment)) for kind, count in here]
            self._bounded(int(rate * _MILLI + 1e-6), [(count, round(each * _MILLI)) for count, each, dummy in reserved])
            pledges = base.pledges[room][moment] // _MIB
            self._bounded(pledges, [(count, -(-each // _MIB)) for count, dummy, each in reserved])

    def _reserved(self, kind: int, moment: int) -> tuple[float, int]:
        for number, rate, memory in self._item(kind).rates:
            if number == moment:
                return rate, memory
        return 0.0, 0

    def _bounded(self, most: int, terms: t.Iterable[tuple[Variable, int]]) -> None:
        parts = [size * count for count, size in terms if size]
        if parts:
            self.model.add(sum(parts) <= max(0, most))

    def _brought(self, room: int) -> None:
        """Layers that the room lacks take disk and time, once each; the disk is bounded."""
        problem, base = self.state.problem, self.base
        users: dict[tuple[str, int], list[tuple[Variable, int]]] = {}
        disks = []
        for kind, count in self._here(room):
            item = self._item(kind)
            disks.append((count, -(-item.disk // _MIB)))
            for digest, size in item.layers:
                if digest not in problem.rooms[room].layers and not base.layers[room].get(digest):
                    users.setdefault((digest, size), []).append((count, len(self.kinds[kind])))
        for number, ((dummy, size), counts) in enumerate(users.items()):
            comes = self.model.new_bool_var(f"l{room}_{number}")
            for count, most in counts:
                self.model.add(count <= most * comes)
            self.terms.append((comes, round(SECOND * size / problem.rooms[room].speed)))
            disks.append((comes, -(-size // _MIB)))
        self._bounded(base.free[room][2] // _MIB, disks)

    def _opened(self, room: int) -> None:
        if not self.state.problem.rooms[room].idle or self.base.inside[room]:
            return
        packed = [(count, len(self.kinds[kind])) for kind, count in self._here(room) if self._item(kind).packed]
        if packed and len(packed) == len(self._here(room)):
            opened = self.model.new_bool_var(f"o{room}")
            for count, most in packed:
                self.model.add(count <= most * opened)
            self.terms.append((opened, round(OPENING)))

    def _fences(self) -> None:
        fenced: dict[frozenset[str], list[int]] = {}
        for kind in range(len(self.kinds)):
            if self._item(kind).fence:
                fenced.setdefault(self._item(kind).fence, []).append(kind)
        keys = {
            fence: {key for kind in kinds for number in self.kinds[kind] for key in self._keys(number)}
            for fence, kinds in fenced.items()
        }
        groups = [kinds for kinds in fenced.values() if len(kinds) > 1]
        for fence, kinds in fenced.items():
            for other, others in fenced.items():
                if fence != other and fence & keys[other]:
                    groups += [[one, two] for one in kinds for two in others]
        for room in self.rooms:
            there = {key for number in self.base.inside[room] for key in self._keys(number)}
            for group in groups:
                counts = [self.counts[kind, room] for kind in group if (kind, room) in self.counts]
                if len(counts) > 1:
                    self.model.add_at_most_one(counts)
            for fence, kinds in fenced.items():
                if fence & there:
                    for kind in kinds:
                        if (kind, room) in self.counts:
                            self.model.add(self.counts[kind, room] == 0)

    def _keys(self, number: int) -> tuple[str, ...]:
        return self.state.problem.items[number].keys

    def _even(self) -> None:
        for index, weight in enumerate(self.state.problem.weights):
            if weight:
                # The slope of the square root: so much the deviation falls for each unit of the sum of squares.
                slope = EVEN * weight / (2 * max(_LEAST_DEVIATION, self.state.deviation(index)))
                for room in self.rooms:
                    self._square(room, index, slope)

    def _square(self, room: int, index: int, slope: float) -> None:
        """Add a variable that is at least ``slope`` times the square of the room's share, by tangents below it."""
        problem, base = self.state.problem, self.base
        total, have = problem.rooms[room].total[index], base.amounts[room][index]
        sizes = [
            (count, (item.memory, item.cpus, len(item.keys))[index])
            for kind, count in self._here(room)
            for item in (self._item(kind),)
        ]
        most = have + sum(
            size * len(self.kinds[kind]) for (kind, dummy), (dummy2, size) in zip(self._here(room), sizes)
        )
        highest = most / total
        square = self.model.new_int_var(0, int(slope * (highest + 1) ** 2) + 1, f"s{room}_{index}")
        mean = self.state.sums[index] / len(problem.rooms)
        # The range of good answers. Beyond it the last tangent holds, which is still below the square.
        last = min(highest, max(have / total, 2 * mean + self.state.deviation(index)))
        points = {
            have / total,
            last,
            *(have / total + (last - have / total) * step / _TANGENTS for step in range(_TANGENTS)),
        }
        # Closer tangents near the mean, where they matter.
        points |= {mean + self.state.deviation(index) * step / 4 for step in range(-8, 9)}
        for point in sorted(each for each in points if each >= 0):
            parts = [int(slope * 2 * point * size / total) * count for count, size in sizes if size]
            self.model.add(square >= sum(parts) + int(slope * (2 * point * have / total - point * point)) - 1)
        self.terms.append((square, 1))

    def answer(self, solver: Library) -> dict[int, int]:
        """A room for each item; items stay where they are if they can."""
        where: dict[int, int] = {}
        for kind, numbers in enumerate(self.kinds):
            left = {room: solver.value(self.counts[kind, room]) for room in self.rooms if (kind, room) in self.counts}
            waiting = []
            for number in numbers:
                room = self.state.where[number]
                if left.get(room):
                    left[room] -= 1
                    where[number] = room
                else:
                    waiting.append(number)
            places = iter([room for room, count in left.items() for dummy in range(count)])
            for number in waiting:
                where[number] = next(places, -1)
        return where


def solve_part(
    state: State,
    rooms: t.Sequence[int],
    numbers: t.Sequence[int],
    *,
    seed: int,
    work: float,
    seconds: float,
    stay: bool = False,
) -> Found:
    """Let CP-SAT place the items ``numbers`` in ``rooms`` anew; other items stay in them.

    With one worker, a seed and a limit in deterministic time, the same call has the same answer, unless ``seconds`` end
    it first.

    :param work: the limit in deterministic time.
    :param stay: keep the current answer, and only find a bound. The objective is that of the current answer then.
    """
    _load()
    model = _Model(state, rooms, _kinds(state, numbers))
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = seed
    solver.parameters.max_deterministic_time = work
    solver.parameters.max_time_in_seconds = max(0.01, seconds)
    if stay:
        # The hint is the current answer. Fixing it gives its objective, in the same unit as the bound.
        fixed = cp_model.CpSolver()
        fixed.parameters.num_workers = 1
        fixed.parameters.fix_variables_to_their_hinted_value = True
        held = fixed.solve(model.model)
        objective = fixed.objective_value if held in (cp_model.OPTIMAL, cp_model.FEASIBLE) else math.inf
    status = solver.solve(model.model)
    if stay:
        return Found(None, False, objective, solver.best_objective_bound, solver.response_proto.deterministic_time)
    spent = solver.response_proto.deterministic_time
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return Found(None, False, 0.0, 0.0, spent)
    return Found(
        model.answer(solver), status == cp_model.OPTIMAL, solver.objective_value, solver.best_objective_bound, spent
    )
