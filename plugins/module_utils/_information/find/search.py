# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Searching for sets among rows that have been read: all sets in turn, or one at random; and the deadline (pure).

Rows are grouped by what must be the same for all members, so a set lies within one :class:`Partition`. Its rows are
sorted by the column of the first sum. The least and the most that the members still to be chosen can add limit the
range of the next member, so that beginnings which can't become an answer are never followed.
"""

from __future__ import annotations

import bisect
import itertools
import math
import operator
import random
import time
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._information.find.question import Bounds, Join, Question

Cell = t.Any
"""A value as the database returned it: text, a number, a truth value or ``None``. Which one, the column says."""

Row = t.Sequence[Cell]
"""The object's uuid, then the values of the layout's columns."""

Answer = t.Tuple[Row, ...]

SortKey = t.Tuple[t.List[t.Tuple[int, Cell]], t.List[str]]
"""Of each order 1 for an unknown value, else 0, and the value; then the uuids."""

_COMPARE: dict[str, t.Callable[[Cell, Cell], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}

_UNIFORM_TRIES = 8
_GUIDED_TRIES = 16
_MEMBER_TRIES = 8
_CHECK_EVERY = 256
"""A loop looks at the clock once in so many rounds."""


class Expired(Exception):
    """The deadline has passed."""


class Deadline:
    """The time by which a question must be answered."""

    def __init__(self, seconds: float | None, clock: t.Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.begin = clock()
        self.end = math.inf if seconds is None else self.begin + seconds
        self._count = 0

    @property
    def left(self) -> float:
        """Seconds left; infinite without a deadline."""
        return self.end - self.clock()

    def tick(self) -> None:
        """To be called in every round of a loop; checks the deadline once in a while.

        :raises Expired: if it has passed.
        """
        self._count += 1
        if self._count % _CHECK_EVERY == 0:
            self.check()

    def check(self) -> None:
        """:raises Expired: if the deadline has passed."""
        if self.clock() >= self.end:
            raise Expired


class Partition:
    """The rows that can be members of a set, for each place of the set. They meet the conditions on single members;
    those on the set are still to be checked.

    :param rows: for each place of the set; members that are alike share one list.
    :param layout: for each place, the position of each column in its rows.
    """

    def __init__(
        self, question: Question, rows: t.Sequence[t.Sequence[Row]], layout: t.Sequence[t.Mapping[str, int]]
    ) -> None:
        self.question = question
        self.size = question.size
        self.layout = layout
        self.primary = next(iter(question.sums), None)
        summed = [[places[column] for column in question.sums] for places in layout]
        # Members that are alike share one list, which is sorted once.
        usable: dict[int, tuple[list[Row], list[Cell]]] = {}
        for place, given in enumerate(rows):
            if id(given) not in usable:
                usable[id(given)] = self._sorted(self._usable(given, summed[place]), layout[place])
        self.rows = [usable[id(given)][0] for given in rows]
        self.values = [usable[id(given)][1] for given in rows]
        self.low, self.high = question.sums.get(self.primary or "", Bounds())
        self.least, self.most = self._rest()
        self._by_value: dict[tuple[int, str], dict[Cell, list[int]]] = {}
        # A join is checked as soon as both of its members are chosen.
        self.joins: list[list[Join]] = [
            [join for join in question.joins if max(join.left[0], join.right[0]) == place] for place in range(self.size)
        ]

    @staticmethod
    def _usable(rows: t.Sequence[Row], summed: t.Sequence[int]) -> list[Row]:
        """Rows whose summed columns are all known: a sum with an unknown part is unknown."""
        return [row for row in rows if all(row[position] is not None for position in summed)]

    def _sorted(self, rows: list[Row], layout: t.Mapping[str, int]) -> tuple[list[Row], list[Cell]]:
        """The rows, sorted by the column of the first sum, and the values of that column."""
        if self.primary is None:
            return rows, []
        position = layout[self.primary]
        rows.sort(key=operator.itemgetter(position, 0))
        return rows, [row[position] for row in rows]

    def _rest(self) -> tuple[list[float], list[float]]:
        """The least and the most that the members from each place on can add to the first sum."""
        least, most = [0.0] * (self.size + 1), [0.0] * (self.size + 1)
        if self.primary is None or any(not values for values in self.values):
            return least, most
        for place in range(self.size - 1, -1, -1):
            values, after = self.values[place], self.size - 1 - place
            if self.question.alike:  # the members are different rows of one list
                least[place] = least[place + 1] + values[min(after, len(values) - 1)]
                most[place] = most[place + 1] + values[max(-1 - after, -len(values))]
            else:
                least[place], most[place] = least[place + 1] + values[0], most[place + 1] + values[-1]
        return least, most

    @property
    def possible(self) -> bool:
        """Whether there may be an answer."""
        if any(not rows for rows in self.rows) or (self.question.alike and len(self.rows[0]) < self.size):
            return False
        return self.primary is None or (self.least[0] <= self.high and self.most[0] >= self.low)

    @property
    def combinations(self) -> int:
        """How many sets there are, before the conditions on the set are checked."""
        if self.question.alike:
            return math.comb(len(self.rows[0]), self.size)
        return math.prod(len(rows) for rows in self.rows)

    def _range(self, place: int, total: float) -> tuple[int, int]:
        """The range of row numbers in which the next member can lie.

        :param total: the first sum over the members that are chosen already.
        """
        if self.primary is None:
            return 0, len(self.rows[place])
        values = self.values[place]
        return (
            bisect.bisect_left(values, self.low - total - self.most[place + 1]),
            bisect.bisect_right(values, self.high - total - self.least[place + 1]),
        )

    def _joined(self, place: int, chosen: t.Sequence[Row], begin: int, end: int) -> t.Sequence[int]:
        """The numbers of those rows from ``begin`` to ``end`` that meet the first equality with an earlier member."""
        for join in self.joins[place]:
            if join.operator != "==":
                continue
            mine, other = (join.left, join.right) if join.left[0] == place else (join.right, join.left)
            index = self._index(place, mine[1])
            found = index.get(chosen[other[0]][self.layout[other[0]][other[1]]], [])
            return found[bisect.bisect_left(found, begin) : bisect.bisect_left(found, end)]
        return range(begin, end)

    def _index(self, place: int, column: str) -> dict[Cell, list[int]]:
        """The numbers of the rows with each value of the column; made once."""
        index = self._by_value.get((place, column))
        if index is None:
            index = self._by_value[place, column] = {}
            position = self.layout[place][column]
            for number, row in enumerate(self.rows[place]):
                if row[position] is not None:
                    index.setdefault(row[position], []).append(number)
        return index

    def fits(self, place: int, chosen: t.Sequence[Row], row: Row) -> bool:
        """Whether the row can join those chosen before it: it is another object, differs in the columns that must be
        different, and meets the joins."""
        if any(row[0] == other[0] for other in chosen):
            return False
        for column in self.question.different:
            value = row[self.layout[place][column]]
            if value is None or any(value == other[self.layout[where][column]] for where, other in enumerate(chosen)):
                return False
        both = (*chosen, row)
        for join in self.joins[place]:
            left, right = (both[where][self.layout[where][column]] for where, column in (join.left, join.right))
            if left is None or right is None or not _COMPARE[join.operator](left, right):
                return False
        return True

    def sums_hold(self, answer: Answer) -> bool:
        """Whether the sums of a complete set lie within their bounds."""
        for column, (low, high) in self.question.sums.items():
            if not low <= sum(row[self.layout[place][column]] for place, row in enumerate(answer)) <= high:
                return False
        return True

    def all_answers(
        self, deadline: Deadline, chosen: Answer = (), after: int = -1, total: float = 0
    ) -> t.Iterator[Answer]:
        """Every answer once; members that are alike come in the order of their rows.

        :param chosen: the members that are chosen already; ``after`` is the row number of the last one and ``total``
            their first sum.
        :raises Expired: at the deadline.
        """
        place = len(chosen)
        begin, end = self._range(place, total)
        if self.question.alike:
            begin = max(begin, after + 1)
        for number in self._joined(place, chosen, begin, end):
            deadline.tick()
            row = self.rows[place][number]
            if not self.fits(place, chosen, row):
                continue
            answer = (*chosen, row)
            if place + 1 < self.size:
                value = self.values[place][number] if self.primary is not None else 0
                yield from self.all_answers(deadline, answer, number, total + value)
            elif self.sums_hold(answer):
                yield answer

    def draw(self, rng: random.Random, deadline: Deadline) -> Answer | None:
        """A random answer, ``None`` if several tries found none.

        The first tries draw all members independently, so that every valid set is equally likely. If valid sets are too
        rare for that, each member is drawn from the range in which the set can still become valid.

        :raises Expired: at the deadline.
        """
        if self.question.alike:
            for dummy in range(_UNIFORM_TRIES):
                deadline.tick()
                answer = tuple(rng.sample(self.rows[0], self.size))
                if self.sums_hold(answer) and all(
                    self.fits(place, answer[:place], answer[place]) for place in range(self.size)
                ):
                    return answer
        for dummy in range(_GUIDED_TRIES):
            deadline.tick()
            guided = self._descend(rng)
            if guided is not None and self.sums_hold(guided):
                return guided
        return None

    def _descend(self, rng: random.Random) -> Answer | None:
        """One try that draws member after member from the range in which the set can still become valid."""
        chosen: Answer = ()
        total: float = 0
        for place in range(self.size):
            begin, end = self._range(place, total)
            choices = self._joined(place, chosen, begin, end)
            if not choices:
                return None
            for number in itertools.islice(_picks(choices, rng), _MEMBER_TRIES):
                row = self.rows[place][number]
                if self.fits(place, chosen, row):
                    chosen = (*chosen, row)
                    total += self.values[place][number] if self.primary is not None else 0
                    break
            else:
                return None
        return chosen


def _picks(choices: t.Sequence[int], rng: random.Random) -> t.Iterator[int]:
    """Random choices without end; one may come again."""
    while True:
        yield choices[rng.randrange(len(choices))]


def identity(answer: Answer, alike: bool) -> t.Hashable:
    """Equal for answers that are the same. The order of members that are alike doesn't matter."""
    uuids = [row[0] for row in answer]
    return frozenset(uuids) if alike else tuple(uuids)


def sort_key(question: Question, layout: t.Sequence[t.Mapping[str, int]]) -> t.Callable[[Answer], SortKey]:
    """The key that sorts answers as the question asks: unknown values last, ties by uuid, so that the order is always
    the same."""

    def key(answer: Answer) -> SortKey:
        parts: list[tuple[int, Cell]] = []
        for order in question.order:
            places = range(question.size) if order.place is None else [order.place]
            found = [answer[place][layout[place][order.column]] for place in places]
            if any(value is None for value in found):
                parts.append((1, 0))
            else:
                value = found[0] if order.place is not None else sum(found)
                parts.append((0, _Reversed(value) if order.descending else value))
        return (parts, [row[0] for row in answer])

    return key


class _Reversed:
    """A value, number or text, that sorts in descending order."""

    def __init__(self, value: Cell) -> None:
        self.value = value

    def __lt__(self, other: _Reversed) -> bool:
        return bool(other.value < self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Reversed) and bool(self.value == other.value)
