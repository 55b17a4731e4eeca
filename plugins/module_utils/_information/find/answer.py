# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Answering a question from the store within its deadline: by going through all sets, or by a sample."""

from __future__ import annotations

import functools
import itertools
import math
import operator
import random
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._information.find import read_sql, statements
from ansible_collections.virtuoso.grid.plugins.module_utils._information.find.bounded import Bounded
from ansible_collections.virtuoso.grid.plugins.module_utils._information.find.picking import (
    Interrupted,
    Lottery,
    smallest,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._information.find.question import (
    Bounds,
    Member,
    Options,
    Question,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._information.find.question import read as read_question
from ansible_collections.virtuoso.grid.plugins.module_utils._information.find.result import Cost, FindResult
from ansible_collections.virtuoso.grid.plugins.module_utils._information.find.search import (
    Answer,
    Cell,
    Deadline,
    Expired,
    Partition,
    Row,
    identity,
    sort_key,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store import writing
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store.database import Store

try:
    import sqlalchemy as sa
except ImportError:
    pass  # schema.SQLALCHEMY_ERROR has the reason

Key = t.Tuple[Cell, ...]
"""The values that are the same for all members of a set; they name a partition."""

Shown = t.Dict[str, object]
"""An object, or a set of them, as an answer shows it."""

EXACT_COMBINATIONS = 200_000
"""``auto`` goes through all sets if there are at most so many."""

WINDOW = 20_000
"""For a sample, at most so many rows of a partition are read, from a random place on in the order of their uuids."""

_FAILURES = 4
_REPETITIONS = 32
"""A sample gives up a partition after so many draws in a row without an answer, or with one that it has already."""

_ORDERED_DRAWS = 20
"""With an order, a sample draws so many times the answers that are wanted, and returns the first of them."""


class Finder:
    """Answers one question on one connection."""

    def __init__(self, connection: sa.Connection, question: Question, deadline: Deadline) -> None:
        self.question = question
        self.deadline = deadline
        self.source = Bounded(connection, deadline)
        self.now = writing.now()
        self.seed = random.SystemRandom().randrange(2**32) if question.seed is None else question.seed
        self.rng = random.Random(self.seed)
        self.missing = False
        self.draws = 0
        self.expired = False  # whether the deadline passed
        self.partial = False  # whether only a part of the rows was read
        self.combinations: int | None = None
        self.sites: frozenset[str] | None = None
        self.layout = [self._layout(place) for place in range(question.size)]

    def run(self) -> FindResult:
        """Answer the question."""
        question = self.question
        try:
            if question.near is not None:
                self.sites = self.near(question.near)
            if question.size == 1 and not question.sums and question.method != "sample":
                return self._single()
            if question.alike:
                return self._alike()
            return self._named()
        except Expired:
            self.expired = True
            return self._result([], "cut", None, question.method)

    # The rows of each member

    def _relation(self, member: Member) -> statements.Relation:
        return statements.Relation(
            member.kind, include=self.question.include, sites=self.sites, now=self.now, missing=self.missing
        )

    def _layout(self, place: int) -> dict[str, int]:
        """The columns of the member that are needed to check sets, with their positions in its rows (0 is the uuid)."""
        question = self.question
        needed = [*question.sums, *question.different]
        needed += [column for join in question.joins for where, column in (join.left, join.right) if where == place]
        needed += [order.column for order in question.order if order.place in (None, place)]
        return {column: number for number, column in enumerate(dict.fromkeys(needed), 1)}

    def statement(self, place: int) -> sa.Select:
        """The rows that can be the member at a place: uuid, the layout's columns, and what must be the same for all."""
        member = self.question.member(place)
        relation = self._relation(member)
        statement = relation.select(list(self.layout[place]), keys=self.question.same)
        return statement.where(*relation.matching(member.where))

    def near(self, name: str) -> frozenset[str]:
        """The uuids of the site of this name, or of this host's site, and of all sites within the latency of it.

        The newest measurement of each pair counts; a site without one is not near.
        """
        own = {row[0] for row in self.source.all(statements.sites_called(name))}
        if not own:
            raise GridError(
                "unknown_site",
                f"there is no site or host {name}",
                tried="read the scope",
                remedy="Name a site or a host that is registered",
            )
        near, bound = set(own), self.question.latency
        if bound is None:
            return frozenset(near)
        for site in own:
            newest: dict[str, float] = {}
            for one, other, seconds in self.source.all(statements.latencies(site)):
                newest.setdefault(other if one == site else one, seconds)
            near |= {other for other, seconds in newest.items() if seconds <= bound}
        return frozenset(near)

    # One object

    def _single(self) -> FindResult:
        question, member = self.question, self.question.members[0]
        relation = self._relation(member)
        shown = question.shown(member)
        ordered = dict.fromkeys(order.column for order in question.order)
        columns = [*shown, *(column for column in ordered if column not in shown)]
        statement = relation.select(columns).where(*relation.matching(member.where)).limit(question.limit + 1)
        for order in question.order:
            path = relation.paths.get(order.column)
            expression = path.column if path else relation.column(order.column)
            statement = statement.order_by((expression.desc() if order.descending else expression.asc()).nulls_last())
        if question.order:
            statement = statement.order_by(relation.root.c.uuid)
        found, whole = self.source.some(statement)
        kept = [dict(zip(shown, row[1:])) for row in found[: question.limit]]
        more = True if len(found) > question.limit else False if whole else None
        return self._result(kept, "complete" if whole else "cut", more, "exact")

    # Sets of members that are alike

    def _alike(self) -> FindResult:
        question = self.question
        if question.method == "exact":
            return self._exact(self._partitions([self.statement(0)]))
        counts = self._census() if not question.members[0].where and self.sites is None else None
        if counts is None:
            counts = self._survey()
        if counts is None:
            counts = self._census()
        self.combinations = (
            None if counts is None else sum(math.comb(count, question.size) for count in counts.values())
        )
        if question.method == "auto" and self.combinations is not None and self.combinations <= EXACT_COMBINATIONS:
            return self._exact(self._partitions([self.statement(0)]))
        if counts is None:
            return self._mixed()
        return self._sample(counts, self._load)

    def _census(self) -> dict[Key, int] | None:
        """The most rows that each partition can have, if the table of the key alone says it; else ``None``."""
        question = self.question
        statement = (
            statements.census(self._relation(question.members[0]), question.same[0])
            if len(question.same) == 1
            else None
        )
        if statement is None:
            return None
        found, whole = self.source.some(statement, share=0.5)
        return {(key,): count for count, key in found if count >= question.size} if whole else None

    def _survey(self) -> dict[Key, int] | None:
        """The rows of each partition that may have an answer; ``None`` if half the time is too short to count."""
        question = self.question
        inner = self.statement(0).subquery()
        keys = [inner.c[f"key_{column}"] for column in question.same]
        primary = next(iter(question.sums), None)
        extremes = [sa.func.min(inner.c[primary]), sa.func.max(inner.c[primary])] if primary else []
        statement = sa.select(sa.func.count(), *extremes, *keys)
        if keys:
            statement = statement.group_by(*keys).having(sa.func.count() >= question.size).order_by(*keys)
        found, whole = self.source.some(statement, share=0.5)
        if not whole:
            return None
        low, high = question.sums.get(primary or "", Bounds())
        counts = {}
        for row in found:
            count, key = row[0], tuple(row[1 + len(extremes) :])
            if count < question.size or (
                primary and (row[1] is None or row[1] * question.size > high or row[2] * question.size < low)
            ):
                continue
            counts[key] = count
        return counts

    def _load(self, key: Key, count: int) -> Partition:
        """Read one partition, or a part of it that is large enough for a sample."""
        whole, part = self._loaders
        parameters = {f"at_{number}": value for number, value in enumerate(key)}
        if count > WINDOW:
            begin = f"{self.rng.getrandbits(32):08x}-"
            found = self.source.all(part, {**parameters, "begin": begin})
            if len(found) < WINDOW:
                found += self.source.all(part, {**parameters, "begin": ""})[: WINDOW - len(found)]
                found = list({row[0]: row for row in found}.values())
        else:
            # Sorted here: with ORDER BY, SQLite walks all objects in that order instead of reading the partition.
            found = sorted(self.source.all(whole, parameters), key=operator.itemgetter(0))
        return Partition(self.question, [found] * self.question.size, self.layout)

    @functools.cached_property
    def _loaders(self) -> tuple[sa.Select, sa.Select]:
        """The statements that read a partition, whole and from a random place on; building them takes time."""
        relation = self._relation(self.question.members[0])
        statement = self.statement(0)
        for number, column in enumerate(self.question.same):
            path = relation.paths.get(column)
            statement = statement.where((path.key if path else relation.column(column)) == sa.bindparam(f"at_{number}"))
        window = statement.where(relation.root.c.uuid >= sa.bindparam("begin", type_=sa.String))
        return statement, window.order_by(relation.root.c.uuid).limit(WINDOW)

    def _mixed(self) -> FindResult:
        """A sample of the rows from a random place on, where there was no time even to count partitions."""
        question = self.question
        relation = self._relation(question.members[0])
        begin = f"{self.rng.getrandbits(32):08x}-"
        statement = self.statement(0).where(relation.root.c.uuid >= begin).order_by(relation.root.c.uuid).limit(WINDOW)
        groups = self._grouped(self.source.some(statement, share=0.5)[0], self.layout[0])
        counts = {key: len(group) for key, group in groups.items() if len(group) >= question.size}
        if not counts:
            raise Expired
        self.partial = True
        return self._sample(counts, lambda key, dummy: Partition(question, [groups[key]] * question.size, self.layout))

    def _sample(self, counts: dict[Key, int], load: t.Callable[[Key, int], Partition]) -> FindResult:
        """Draw partitions by their number of sets, and a set in each, until there are enough answers."""
        question = self.question
        wanted = question.limit * (_ORDERED_DRAWS if question.order else 1)
        found: dict[t.Hashable, tuple[Answer, Key]] = {}
        loaded: dict[Key, Partition] = {}
        hopeless: dict[Key, int] = {}
        unproved = self.partial  # whether there may be answers where none were found
        pick = Lottery({key: math.comb(count, question.size) for key, count in counts.items()}, self.rng)
        try:
            while len(found) < wanted and pick.left:
                key = pick.draw()
                partition = loaded.get(key)
                if partition is None:
                    partition = loaded[key] = load(key, counts[key])
                self.draws += 1
                answer = partition.draw(self.rng, self.deadline) if partition.possible else None
                if (
                    answer is not None
                    and found.setdefault(identity(answer, question.alike), (answer, key))[0] is answer
                ):
                    hopeless.pop(key, None)
                    continue
                hopeless[key] = hopeless.get(key, 0) + (_REPETITIONS // _FAILURES if answer is None else 1)
                if hopeless[key] >= _REPETITIONS or not partition.possible:
                    pick.drop(key)
                    unproved = unproved or partition.possible or counts[key] > WINDOW
        except Expired:
            unproved = self.expired = True
        answers = [answer for answer, dummy in found.values()]
        if question.order:
            answers.sort(key=sort_key(question, self.layout))
        more = len(found) > question.limit or None
        # If no partition can have an answer, "none" is the complete answer.
        nothing = not found and not unproved
        kind = "complete" if nothing else "cut" if self.expired and not found else "sample"
        return self._result(self._shown(answers[: question.limit]), kind, False if nothing else more, "sample")

    # All sets

    def _partitions(self, selects: t.Sequence[sa.Select], share: float = 1.0) -> tuple[dict[Key, Partition], bool]:
        """Read the rows of all members, in partitions; and whether all of them came in time."""
        grouped, all_whole = [], True
        for place, statement in enumerate(selects):
            found, whole = self.source.some(statement, share=share)
            grouped.append(self._grouped(found, self.layout[place]))
            all_whole = all_whole and whole
        if self.question.alike:
            grouped *= self.question.size
        keys = [key for key in grouped[0] if all(key in group for group in grouped)]
        partitions = {key: Partition(self.question, [group[key] for group in grouped], self.layout) for key in keys}
        return {key: partition for key, partition in partitions.items() if partition.possible}, all_whole

    def _grouped(self, found: t.Iterable[Row], layout: t.Mapping[str, int]) -> dict[Key, list[Row]]:
        """The rows by the values that must be the same."""
        groups: dict[Key, list[Row]] = {}
        first = 1 + len(layout)
        for row in found:
            groups.setdefault(tuple(row[first:]), []).append(row)
        return groups

    def _exact(self, read: tuple[dict[Key, Partition], bool]) -> FindResult:
        """Go through all sets; without an order, until there are enough answers."""
        question = self.question
        partitions, whole = read
        self.combinations = sum(partition.combinations for partition in partitions.values())
        every = itertools.chain.from_iterable(partition.all_answers(self.deadline) for partition in partitions.values())
        answers: list[Answer] = []
        more: bool | None = False
        try:
            if question.order:
                answers, count = smallest(every, question.limit, sort_key(question, self.layout))
                more = count > question.limit
            else:
                for answer in every:
                    if len(answers) == question.limit:
                        more = True
                        break
                    answers.append(answer)
        except Interrupted as exc:
            answers, whole, more = exc.answers, False, None
        except Expired:
            whole, more = False, None
        return self._result(self._shown(answers), "complete" if whole else "cut", more, "exact")

    def _named(self) -> FindResult:
        """Sets of several kinds: read the rows of each member, then go through all sets or draw some."""
        question = self.question
        selects = [self.statement(place) for place in range(question.size)]
        exact = question.method == "exact"
        partitions, whole = self._partitions(selects, share=1.0 if exact else 0.4)
        self.combinations = sum(partition.combinations for partition in partitions.values())
        if exact or (question.method == "auto" and whole and self.combinations <= EXACT_COMBINATIONS):
            return self._exact((partitions, whole))
        counts = {key: partition.combinations for key, partition in partitions.items()}
        return self._sample_named(counts, partitions, whole)

    def _sample_named(self, counts: dict[Key, int], partitions: dict[Key, Partition], whole: bool) -> FindResult:
        result = self._sample(counts, lambda key, dummy: partitions[key])
        if not counts and not whole:
            result["answer"], result["more"] = "cut", None
        return result

    # The result

    def _shown(self, answers: t.Sequence[Answer]) -> list[Shown]:
        """The answers as they are returned. The columns that members show are only read now, and only for these."""
        question = self.question
        details = [self._details(place, answers) for place in ([0] if question.alike else range(question.size))]
        shown: list[Shown] = []
        for answer in answers:
            members: list[Shown] = []
            for place, row in enumerate(answer):
                key = (row[0], *row[1 + len(self.layout[place]) :])
                detail = details[0 if question.alike else place][key]
                members.append(dict(detail) if question.alike else {"member": question.member(place).name, **detail})
            if question.size == 1:
                shown.append(members[0])
                continue
            sums = {
                column: sum(row[self.layout[place][column]] for place, row in enumerate(answer))
                for column in question.sums
            }
            shown.append({"members": members, "sum": sums})
        return shown

    def _details(self, place: int, answers: t.Sequence[Answer]) -> dict[Key, Shown]:
        """What the members at a place show, by their uuid and the values that must be the same."""
        member = self.question.member(place)
        relation, columns = self._relation(member), self.question.shown(member)
        wanted = sorted(
            {row[0] for answer in answers for row in (answer if self.question.alike else answer[place : place + 1])}
        )
        statement = relation.select(columns, keys=self.question.same)
        details = {}
        for begin in range(0, len(wanted), 500):
            part = statement.where(relation.root.c.uuid.in_(wanted[begin : begin + 500]))
            # Also after the deadline: an answer that was found is shown.
            for row in self.source.all(part, bounded=False):
                details[(row[0], *row[1 + len(columns) :])] = dict(zip(columns, row[1 : 1 + len(columns)]))
        return details

    def _result(self, found: list[Shown], answer: str, more: bool | None, method: str) -> FindResult:
        seconds = self.deadline.clock() - self.deadline.begin
        cost: Cost = {
            "seconds": round(seconds, 6),
            "method": method,
            "statements": self.source.statements,
            "rows": self.source.rows,
            "draws": self.draws,
            "combinations": self.combinations,
            "expired": self.expired or answer == "cut",
        }
        return {"found": found, "answer": answer, "more": more, "seed": self.seed, "cost": cost}


def matching(connection: sa.Connection, options: Options) -> set[str]:
    """The uuids of all objects that meet the conditions, without a limit, vanished machines included.

    :param options: ``of``, ``where``, ``include`` and ``scope`` of a question.
    :raises GridError: as :func:`question.read`, and ``unknown_site``.
    """
    asked = read_question(options)
    finder = Finder(connection, asked, Deadline(None))
    finder.missing = True
    if asked.near is not None:
        finder.sites = finder.near(asked.near)
    return {row[0] for row in finder.source.all(finder.statement(0))}


def find(store: Store, options: Options) -> FindResult:
    """Read the question, open the store, answer: what the module and the lookup ``find`` do.

    :raises GridError: as :func:`question.read`, :meth:`Store.reading` and :func:`read_sql.query`.
    """
    question = read_question(options)
    deadline = Deadline(question.within)
    text = options.get("sql")
    if text and any(
        options.get(name)
        for name in ("where", "members", "same", "different", "sum", "join", "order", "scope", "include")
    ):
        raise GridError(
            "invalid_question",
            "sql is given beside other conditions",
            tried="read the question",
            remedy="Put all of them into the statement",
        )
    with store.reading() as connection:
        if text:
            return read_sql.query(connection, text, deadline, question.limit)
        return Finder(connection, question, deadline).run()
