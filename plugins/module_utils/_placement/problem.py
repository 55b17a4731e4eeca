# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Placement as an optimization problem: items (machines that stay together), rooms (providers), costs (pure).

The cost is in points. A machine whose goal is price or interactivity costs up to ``FIRST`` on the provider that is
worst for it. Transferring an image costs ``SECOND`` for each second. An idle provider that only machines with the goal
``pack`` would use costs ``OPENING``. Unevenness is the sum of the standard deviations of the shares of memory and CPU;
it costs ``EVEN`` times the number of providers. So price and latency come first, then evenness, and where images are
decides between answers that are almost equally even.
"""

from __future__ import annotations

import dataclasses
import math
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._placement.board import Board
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.greedy import goal_value
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.model import Demand

UNPLACED, FIRST, OPENING, EVEN, SECOND = 1e9, 1e7, 1e6, 1e5, 100.0


@dataclasses.dataclass(frozen=True)
class Weights:
    """The weights of the standard deviations of the providers' shares of memory and CPU, and of their numbers of
    machines."""

    memory: float = 1.0
    cpus: float = 1.0
    machines: float = 0.0


@dataclasses.dataclass
class Item:
    """Machines that go to one provider together; sizes in bytes."""

    keys: tuple[str, ...]  # of the machines
    cpus: int
    memory: int
    disk: int
    layers: tuple[tuple[str, int], ...]  # digest and size
    rates: tuple[tuple[int, float, int], ...]  # number of a moment, CPUs and memory that are reserved then
    cost: dict[int, float]  # points, by the number of each room that may hold it
    packed: bool  # whether the goal of all machines is pack
    fence: frozenset[str]  # keys of machines that can't share a room, its own included; empty if there are none
    alike: t.Hashable = None  # equal for items that can replace each other


@dataclasses.dataclass
class Room:
    """A provider; sizes in bytes."""

    name: str
    cpus: int  # free
    memory: int  # free
    disk: int  # free
    used: tuple[float, float, float]  # memory, CPUs, machines
    total: tuple[float, float, float]  # memory and CPUs that may be promised, and 1
    layers: frozenset[str]  # digests
    idle: bool  # whether there is no machine on it
    speed: float  # bytes per second at which images arrive
    rates: list[float]  # CPUs that can still be reserved, by the number of a moment
    pledges: list[int]  # memory that can still be reserved, by the number of a moment


@dataclasses.dataclass
class Problem:
    """Items, rooms, and the weights of evenness (memory, CPU, machines), all zero if every machine is packed."""

    items: list[Item]
    rooms: list[Room]
    weights: tuple[float, float, float]


def _goal_costs(board: Board, demand: Demand) -> dict[str, float]:
    """The points of each provider that isn't barred: the distance to the best one for the machine's goal."""
    names = [name for name in board.accounts if board.barred(name, demand) is None]
    values = {name: goal_value(board.providers[name], demand) for name in names}
    known = [value for value in values.values() if value is not None]
    least, span = min(known, default=0.0), (max(known, default=0.0) - min(known, default=0.0)) or 1.0
    matters = demand.goal in ("price", "interactivity") and bool(known)
    worst = 2 * FIRST if matters else 0.0
    return {name: worst if value is None else FIRST * (value - least) / span for name, value in values.items()}


class _Reader:
    """Turns a settled board into a problem."""

    def __init__(self, board: Board, demands: t.Sequence[Demand], wanted: t.Sequence[t.Sequence[int]]) -> None:
        self.board = board
        self.demands = demands
        self.numbers = {name: number for number, name in enumerate(board.accounts)}
        self.wanted = wanted
        self._costs: dict[t.Hashable, dict[str, float]] = {}
        slots = [slot for account in board.accounts.values() for slot in account.slots]
        slots += [demand.slot for bundle in wanted for demand in (demands[index] for index in bundle) if demand.slot]
        self.moments = sorted({slot.begin for slot in slots})

    def costs(self, demand: Demand) -> dict[str, float]:
        """The points of a machine by provider; computed once for machines that are alike."""
        bonds = self.board.bonds
        if demand.key in bonds.together or demand.key in bonds.apart:
            return _goal_costs(self.board, demand)
        kind = (
            demand.architecture,
            demand.network,
            demand.extra_networks,
            demand.site,
            demand.features,
            demand.goal,
            demand.home,
        )
        if kind not in self._costs:
            self._costs[kind] = _goal_costs(self.board, demand)
        return self._costs[kind]

    def item(self, bundle: t.Sequence[int]) -> Item:
        """A bundle as an item."""
        demands = [self.demands[index] for index in bundle]
        keys = tuple(demand.key for demand in demands)
        costs = [self.costs(demand) for demand in demands]
        names = [name for name in costs[0] if all(name in each for each in costs)]
        cost = {self.numbers[name]: sum(each[name] for each in costs) for name in names}
        rates = []
        for number, moment in enumerate(self.moments):
            now = [demand.slot for demand in demands if demand.slot is not None and demand.slot.at(moment)]
            if now:
                rates.append((number, sum(slot.rate for slot in now), sum(slot.memory for slot in now)))
        far: frozenset[str] = frozenset().union(*(self.board.bonds.apart.get(key, frozenset()) for key in keys))
        still = {self.demands[index].key for bundle in self.wanted for index in bundle} if far else set()
        fence = (far & still) | frozenset(keys) if far & still else frozenset()
        uses = [demand.use for demand in demands]
        layers = {use.digest: use.layer_size for use in uses if use.digest}
        item = Item(
            keys,
            sum(use.cpus for use in uses),
            sum(use.memory for use in uses),
            sum(use.disk for use in uses),
            tuple(sorted(layers.items())),
            tuple(rates),
            cost,
            all(demand.goal == "pack" for demand in demands),
            fence,
        )
        item.alike = (
            len(keys),
            item.cpus,
            item.memory,
            item.disk,
            item.layers,
            item.rates,
            tuple(cost.items()),
            item.packed,
            fence,
        )
        return item

    def room(self, name: str) -> Room:
        """A provider as a room."""
        account, provider, rules = self.board.accounts[name], self.board.providers[name], self.board.rules
        free = account.free()
        whole = (provider.memory * rules.memory_overcommit, provider.cpus * rules.cpu_overcommit, 1.0)
        used = (
            provider.memory_allocated + account.sums.memory,
            provider.cpus_allocated + account.sums.cpus,
            float(len(account.keys)),
        )
        now = [[slot for slot in account.slots if slot.at(moment)] for moment in self.moments]
        taken = [(sum(slot.rate for slot in slots), sum(slot.memory for slot in slots)) for slots in now]
        return Room(
            name,
            free.cpus,
            free.memory,
            free.disk,
            used,
            (max(1.0, whole[0]), max(1.0, whole[1]), 1.0),
            provider.digests | frozenset(account.coming),
            not account.keys and not provider.cpus_allocated,
            max(1.0, provider.speed),
            [account.reservable - rate for rate, dummy in taken],
            [account.pledgeable - memory for dummy, memory in taken],
        )


def read(
    board: Board, demands: t.Sequence[Demand], wanted: t.Sequence[t.Sequence[int]], weights: Weights = Weights()
) -> Problem:
    """The problem of placing ``wanted`` (see :func:`greedy.bundles`) on a settled board."""
    reader = _Reader(board, demands, wanted)
    items = [reader.item(bundle) for bundle in wanted]
    even = not all(item.packed for item in items)
    return Problem(
        items,
        [reader.room(name) for name in board.accounts],
        (weights.memory, weights.cpus, weights.machines) if even else (0.0, 0.0, 0.0),
    )


class State:
    """The room of each item (-1: none), and the cost, which is updated as items move."""

    def __init__(self, problem: Problem, where: t.Sequence[int]) -> None:
        self.problem = problem
        self.where = [-1] * len(problem.items)
        self.free = [[room.cpus, room.memory, room.disk] for room in problem.rooms]
        self.amounts = [list(room.used) for room in problem.rooms]
        self.rates = [list(room.rates) for room in problem.rooms]
        self.pledges = [list(room.pledges) for room in problem.rooms]
        self.layers: list[dict[str, int]] = [{} for dummy in problem.rooms]
        self.inside: list[set[int]] = [set() for dummy in problem.rooms]
        self.linear = UNPLACED * len(problem.items)
        shares = [[amount / whole for amount, whole in zip(room.used, room.total)] for room in problem.rooms]
        self.sums = [sum(share[index] for share in shares) for index in range(3)]
        self.squares = [sum(share[index] ** 2 for share in shares) for index in range(3)]
        for number, room in enumerate(where):
            if room >= 0:
                self.put(number, room)

    def fits(self, number: int, target: int) -> bool:
        """Whether an item that is not in the room fits into it."""
        item, free = self.problem.items[number], self.free[target]
        if target not in item.cost or (item.cpus and item.cpus > free[0]) or (item.memory and item.memory > free[1]):
            return False
        disk = item.disk
        for digest, size in item.layers:
            if digest not in self.problem.rooms[target].layers and not self.layers[target].get(digest):
                disk += size
        if disk and disk > free[2]:
            return False
        for moment, rate, memory in item.rates:
            if rate > self.rates[target][moment] + 1e-9 or memory > self.pledges[target][moment]:
                return False
        return not item.fence or not any(
            key in item.fence for other in self.inside[target] for key in self.problem.items[other].keys
        )

    def _shift(self, number: int, target: int, sign: int) -> None:
        item, free, room = self.problem.items[number], self.free[target], self.problem.rooms[target]
        free[0] -= sign * item.cpus
        free[1] -= sign * item.memory
        free[2] -= sign * item.disk
        for index, amount in enumerate((item.memory, item.cpus, len(item.keys))):
            before = self.amounts[target][index] / room.total[index]
            self.amounts[target][index] += sign * amount
            after = self.amounts[target][index] / room.total[index]
            self.sums[index] += after - before
            self.squares[index] += after * after - before * before
        for moment, rate, memory in item.rates:
            self.rates[target][moment] -= sign * rate
            self.pledges[target][moment] -= sign * memory
        self.linear += sign * item.cost[target]
        layers = self.layers[target]
        for digest, size in item.layers:
            if digest in room.layers:
                continue
            count = layers.get(digest, 0) + sign
            layers[digest] = count
            if (count, sign) in ((1, 1), (0, -1)):
                free[2] -= sign * size
                self.linear += sign * SECOND * size / room.speed

    def _opening(self, target: int) -> float:
        """The points of a room that was idle and is now used by packed machines only."""
        items = self.problem.items
        alone = (
            self.problem.rooms[target].idle
            and self.inside[target]
            and all(items[number].packed for number in self.inside[target])
        )
        return OPENING if alone else 0.0

    def put(self, number: int, target: int) -> None:
        """Put an item that is in no room into one."""
        self.linear -= self._opening(target) + UNPLACED
        self._shift(number, target, 1)
        self.inside[target].add(number)
        self.where[number] = target
        self.linear += self._opening(target)

    def take(self, number: int) -> int:
        """Take an item out of its room; returns the room."""
        source = self.where[number]
        self.linear -= self._opening(source)
        self._shift(number, source, -1)
        self.inside[source].discard(number)
        self.where[number] = -1
        self.linear += self._opening(source) + UNPLACED
        return source

    def bringing(self, number: int, target: int) -> float:
        """The points of transferring the item's images to the room, if nothing else there needs them."""
        room = self.problem.rooms[target]
        sizes = (size for digest, size in self.problem.items[number].layers if digest not in room.layers)
        return SECOND * sum(sizes) / room.speed

    def deviation(self, index: int) -> float:
        """The standard deviation of the rooms' shares of memory (0) or CPU (1), or of their numbers of machines (2)."""
        rooms = max(1, len(self.problem.rooms))
        mean = self.sums[index] / rooms
        return math.sqrt(max(0.0, self.squares[index] / rooms - mean * mean))

    def net(self, number: int, other: int | None = None) -> tuple[int, int, int]:
        """Memory, CPUs and machines that its room loses when the item moves, or is exchanged with another one."""
        item = self.problem.items[number]
        if other is None:
            return item.memory, item.cpus, len(item.keys)
        back = self.problem.items[other]
        return item.memory - back.memory, item.cpus - back.cpus, len(item.keys) - len(back.keys)

    def uneven(self, source: int = 0, target: int = 0, net: tuple[int, int, int] | None = None) -> float:
        """The weighted sum of the standard deviations; with ``net``, after that much has moved from ``source`` to
        ``target``."""
        rooms, problem, total = max(1, len(self.problem.rooms)), self.problem, 0.0
        for index, weight in enumerate(problem.weights):
            if not weight:
                continue
            linear, square = self.sums[index], self.squares[index]
            if net is not None:
                for room, sign in ((source, -1), (target, 1)):
                    if room >= 0:
                        whole = problem.rooms[room].total[index]
                        now = self.amounts[room][index] / whole
                        more = sign * net[index] / whole
                        linear += more
                        square += more * (2 * now + more)
            mean = linear / rooms
            total += weight * math.sqrt(max(0.0, square / rooms - mean * mean))
        return total

    @property
    def cost(self) -> float:
        """The total cost in points."""
        return self.linear + EVEN * len(self.problem.rooms) * self.uneven()
