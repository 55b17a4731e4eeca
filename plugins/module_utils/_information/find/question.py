# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A question to the store, read from options: the members of a set and the conditions on them (pure)."""

from __future__ import annotations

import dataclasses
import math
import re
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._information.find import conditions
from ansible_collections.virtuoso.grid.plugins.module_utils._information.find.conditions import Condition
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.spec import shorten
from ansible_collections.virtuoso.grid.plugins.module_utils._units import parse_duration

NATURES = ("virtual", "physical", "future")
METHODS = ("exact", "sample", "auto")
MOST_MEMBERS = 64
MOST_ANSWERS = 100_000

_SHOWN = {
    "link": ("uuid", "site_a", "site_b"),
    "host": ("name", "uuid", "site"),
    "machine": ("name", "uuid", "site", "state"),
}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,30}", re.ASCII)
_JOIN = re.compile(r"\s*(\w+)\.(\w+)\s*(==|!=|<=|>=|<|>|=)\s*(\w+)\.(\w+)\s*", re.ASCII)
_ORDER = re.compile(r"\s*([+-]?)\s*(?:sum\(\s*(\w+)\s*\)|(?:(\w+)\.)?(\w+))\s*", re.ASCII)


class Options(t.TypedDict, total=False):
    """The options of a question, documented in the fragment ``find``; unchecked beyond what Ansible checks."""

    of: str
    where: list[object]
    size: int
    members: dict[str, object] | None
    same: list[str]
    different: list[str]
    sum: list[object]
    join: list[str]
    order: list[str]
    limit: int
    include: list[str] | None
    scope: dict[str, object] | None
    within: str | None
    method: str
    seed: int | None
    columns: list[str] | None
    sql: str | None


class Bounds(t.NamedTuple):
    """The least and the most that a sum may be, both included."""

    low: float = -math.inf
    high: float = math.inf


@dataclasses.dataclass(frozen=True)
class Member:
    """One member of a set: its kind, and the conditions on it alone."""

    name: str
    kind: str
    where: tuple[Condition, ...]


@dataclasses.dataclass(frozen=True)
class Join:
    """A comparison of two members: ``left operator right``; each side is the place of a member and its column."""

    left: tuple[int, str]
    operator: str
    right: tuple[int, str]


@dataclasses.dataclass(frozen=True)
class Order:
    """What to order by: the sum of the column over the set (``place`` is ``None``), or the column of one member."""

    column: str
    place: int | None
    descending: bool


@dataclasses.dataclass(frozen=True)
class Question:
    """A question. A set has either ``size`` members that are all alike, or one for each of ``members``."""

    members: tuple[Member, ...]
    size: int = 1
    same: tuple[str, ...] = ()
    different: tuple[str, ...] = ()
    sums: t.Mapping[str, Bounds] = dataclasses.field(default_factory=dict)
    joins: tuple[Join, ...] = ()
    order: tuple[Order, ...] = ()
    limit: int = 100
    include: frozenset[str] | None = None  # of NATURES; None: everything that exists
    near: str | None = None  # name of a site or host
    latency: float | None = None  # seconds
    within: float | None = None  # seconds
    method: str = "auto"
    seed: int | None = None
    columns: tuple[str, ...] | None = None

    @property
    def alike(self) -> bool:
        """Whether the members are all alike, and so have no names."""
        return len(self.members) == 1

    def member(self, place: int) -> Member:
        """The member at a place of the set."""
        return self.members[0 if self.alike else place]

    def shown(self, member: Member) -> tuple[str, ...]:
        """The columns of a member that an answer shows; the kind of a host only if the question asks for it."""
        nature = ("kind",) if self.include is not None and member.kind == "host" else ()
        usual = (*_SHOWN.get(member.kind, ("name", "uuid")), *nature)
        if self.columns is not None:
            mine = tuple(column for column in self.columns if column in conditions.COLUMNS[member.kind])
            return tuple(dict.fromkeys(("uuid", *mine)))
        asked = [*self.same, *self.different, *self.sums, *(condition.column for condition in member.where)]
        for place in range(self.size):
            if self.member(place) is member:
                asked += [column for join in self.joins for where, column in (join.left, join.right) if where == place]
                asked += [order.column for order in self.order if order.place in (None, place)]
        return tuple(dict.fromkeys((*usual, *asked)))


def read(options: Options) -> Question:
    """The question that the options ask.

    :raises GridError: ``unknown_kind``, ``unknown_column``, ``unknown_unit``, ``invalid_condition``, ``invalid_value``,
        ``invalid_question``, ``impossible_sum``, ``invalid_deadline``.
    """
    members = _members(options)
    size = int(options.get("size") or 1) if len(members) == 1 else len(members)
    if not 1 <= size <= MOST_MEMBERS:
        raise _invalid(f"a set can't have {shorten(size)} members", f"Give a size from 1 to {MOST_MEMBERS}")
    limit = options.get("limit")
    limit = 100 if limit is None else int(limit)
    if not 1 <= limit <= MOST_ANSWERS:
        raise _invalid(f"{limit} answers can't be given", f"Give a limit from 1 to {MOST_ANSWERS}")
    same = tuple(dict.fromkeys(options.get("same") or ()))
    different = tuple(dict.fromkeys(options.get("different") or ()))
    for member in members:
        for column in (*same, *different):
            conditions.form_of(member.kind, column)
    columns = options.get("columns")
    for column in columns or ():
        if all(column not in conditions.COLUMNS[member.kind] for member in members):
            conditions.form_of(members[0].kind, column)
    sums = _sums(options.get("sum") or (), members)
    _check_sums(sums, members, size)
    near, latency = _scope(options.get("scope"), members)
    return Question(
        members=members,
        size=size,
        same=same,
        different=different,
        sums=sums,
        joins=tuple(_join(given, members) for given in options.get("join") or ()),
        order=tuple(_order(given, members, size) for given in options.get("order") or ()),
        limit=limit,
        include=_include(options.get("include"), members),
        near=near,
        latency=latency,
        within=_within(options.get("within")),
        method=options.get("method") or "auto",
        seed=options.get("seed"),
        columns=None if columns is None else tuple(columns),
    )


def _invalid(msg: str, remedy: str) -> GridError:
    return GridError("invalid_question", msg, tried="read the question", remedy=remedy)


def _where(kind: str, given: object) -> tuple[Condition, ...]:
    entries = given if isinstance(given, (list, tuple)) else [given] if given else ()
    return tuple(conditions.parse(kind, entry) for entry in entries)


def _members(options: Options) -> tuple[Member, ...]:
    named = options.get("members")
    if not named:
        kind = conditions.check_kind(options.get("of") or "host")
        return (Member("member", kind, _where(kind, options.get("where"))),)
    if options.get("where") or options.get("of") not in (None, "host") or (options.get("size") or 1) != 1:
        raise _invalid(
            "members are given beside of, where or size", "Give each member's kind and conditions in members"
        )
    if len(named) < 2:
        raise _invalid("there is only one member", "Use of and where for it; members are for sets of several kinds")
    members = []
    for name, given in named.items():
        if (
            not isinstance(name, str)
            or not _NAME.fullmatch(name)
            or not isinstance(given, t.Mapping)
            or set(given) - {"of", "where"}
        ):
            raise _invalid(
                f"the member {shorten(name)} is not understood", "Give each a name and a mapping of of and where"
            )
        kind = conditions.check_kind(given.get("of") or "host")
        members.append(Member(name, kind, _where(kind, given.get("where"))))
    return tuple(members)


def _sums(given: t.Sequence[object] | str, members: t.Sequence[Member]) -> dict[str, Bounds]:
    """The bounds of each summed column."""
    bounds: dict[str, Bounds] = {}
    for entry in [given] if isinstance(given, (str, dict)) else given:
        column, operator, value = conditions.split(entry)
        form = ""
        for member in members:
            form = conditions.form_of(member.kind, column)
        if form not in conditions.NUMERIC_FORMS or operator not in ("==", "<", "<=", ">", ">="):
            raise GridError(
                "impossible_sum",
                f"a sum of {column} can't be compared by {operator}",
                remedy="Sum sizes and numbers, and compare by ==, <, <=, > or >=",
                column=column,
            )
        number = t.cast(float, conditions.parse_value(column, form, value))
        low, high = bounds.get(column, Bounds())
        if operator in ("==", ">=", ">"):
            low = max(low, _next(number, form, math.inf) if operator == ">" else number)
        if operator in ("==", "<=", "<"):
            high = min(high, _next(number, form, -math.inf) if operator == "<" else number)
        bounds[column] = Bounds(low, high)
    return bounds


def _next(number: float, form: str, towards: float) -> float:
    """The next value of a form, which makes an excluded bound an included one."""
    return math.nextafter(number, towards) if form == "number" else number + (1 if towards > 0 else -1)


def _check_sums(sums: t.Mapping[str, Bounds], members: t.Sequence[Member], size: int) -> None:
    """:raises GridError: ``impossible_sum`` for bounds that no data can meet."""
    for column, (low, high) in sums.items():
        least = most = 0.0
        for place in range(size):
            mine = [
                condition
                for condition in members[0 if len(members) == 1 else place].where
                if condition.column == column
            ]
            lows = [t.cast(float, condition.values[0]) for condition in mine if condition.operator in (">", ">=", "==")]
            highs = [
                t.cast(float, condition.values[0]) for condition in mine if condition.operator in ("<", "<=", "==")
            ]
            least += max([0.0, *lows])
            most += min([math.inf, *highs])
        if low > high or high < least or low > most:
            raise GridError(
                "impossible_sum",
                f"no set can have such a sum of {column}: the bounds exclude each other, "
                "or what is asked of each member excludes them",
                remedy="Make the upper bound larger than the lower one, and both possible with so many members",
                column=column,
            )


def _place(name: str, members: t.Sequence[Member]) -> int:
    for place, member in enumerate(members):
        if member.name == name:
            return place
    raise _invalid(f"there is no member {shorten(name)}", f"There are {', '.join(member.name for member in members)}")


def _join(given: object, members: t.Sequence[Member]) -> Join:
    match = _JOIN.fullmatch(given) if isinstance(given, str) else None
    if match is None or len(members) < 2:
        raise _invalid(
            f"{shorten(given)} doesn't join two members",
            "Write for example guest.memory <= host.memory_available, with named members",
        )
    left, right = _place(match.group(1), members), _place(match.group(4), members)
    forms = [
        conditions.form_of(members[place].kind, column)
        for place, column in ((left, match.group(2)), (right, match.group(5)))
    ]
    if left == right or (forms[0] in conditions.NUMERIC_FORMS) != (forms[1] in conditions.NUMERIC_FORMS):
        raise _invalid(
            f"{shorten(given)} doesn't join two members", "Compare columns of two members that have the same form"
        )
    operator = match.group(3)
    return Join((left, match.group(2)), "==" if operator == "=" else operator, (right, match.group(5)))


def _order(given: object, members: t.Sequence[Member], size: int) -> Order:
    match = _ORDER.fullmatch(given) if isinstance(given, str) else None
    if match is None:
        raise _invalid(
            f"{shorten(given)} is no order",
            "Write a column, -column for the largest first, sum(column) or member.column",
        )
    sign, total, name, column = match.groups()
    if total is not None:
        forms = {conditions.form_of(member.kind, total) for member in members}
        if not forms <= set(conditions.NUMERIC_FORMS):
            raise _invalid(f"{total} can't be summed", "Sum sizes and numbers")
        return Order(total, None, sign == "-")
    if name is None and size > 1:
        raise _invalid(
            f"{shorten(given)} doesn't say whose {column}",
            f"Write sum({column})" + ("" if len(members) == 1 else f" or member.{column}"),
        )
    place = 0 if name is None else _place(name, members)
    conditions.form_of(members[place].kind, column)
    return Order(column, place, sign == "-")


def _include(given: t.Sequence[str] | None, members: t.Sequence[Member]) -> frozenset[str] | None:
    if not given:
        return None
    wanted = frozenset(given)
    if wanted - set(NATURES):
        raise _invalid(
            f"{shorten(sorted(wanted - set(NATURES))[0])} can't be included", f"Include some of {', '.join(NATURES)}"
        )
    for member in members:
        if (
            member.kind == "machine"
            and wanted == {"physical"}
            or member.kind in ("provider", "home")
            and "physical" not in wanted
        ):
            raise _invalid(
                f"no {member.kind} is {' or '.join(sorted(wanted))}", "Ask for hosts, or include what they are"
            )
    return wanted


def _scope(given: t.Mapping[str, object] | None, members: t.Sequence[Member]) -> tuple[str | None, float | None]:
    if not given:
        return None, None
    if not isinstance(given, t.Mapping) or set(given) - {"near", "latency"} or not isinstance(given.get("near"), str):
        raise _invalid(
            f"the scope {shorten(given)} is not understood", "Give near, a site or host, and latency, for example 20 ms"
        )
    strange = [member.kind for member in members if member.kind not in (*conditions.HOSTS, "site")]
    if strange:
        raise _invalid(f"a {strange[0]} isn't near anything", "Give a scope to questions about hosts and sites only")
    latency = given.get("latency")
    return str(given["near"]), None if latency is None else parse_duration(latency, "latency")


def _within(given: object) -> float | None:
    if given is None or given == "":
        return None
    try:
        seconds = parse_duration(given, "within")
    except GridError as exc:
        raise GridError("invalid_deadline", exc.msg, tried="read the question", remedy=exc.remedy) from exc
    if seconds <= 0:
        raise GridError(
            "invalid_deadline",
            "the deadline is 0, within which nothing can be found",
            tried="read the question",
            remedy="Give a time in within, for example 1 s, or leave it out to wait for all answers",
        )
    return seconds
