# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading conditions and questions: what is understood, and what is refused with which code."""

from __future__ import annotations

import datetime
import math

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._argspec import FIND
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._information.find import conditions, question

GIB, MIB = 2**30, 2**20
PAIR = {"db": {"of": "machine", "where": ["memory >= 2 GiB"]}, "host": {"of": "provider"}}


@pytest.mark.parametrize(
    ("text", "column", "operator", "values"),
    [
        ("memory >= 1 GiB", "memory", ">=", (GIB,)),
        ("memory>=1.5GiB", "memory", ">=", (3 * GIB // 2,)),
        ("memory < 1073741824", "memory", "<", (GIB,)),
        ("cpus = 4", "cpus", "==", (4,)),
        ("cpus != 4", "cpus", "!=", (4,)),
        ("load <= 0.5", "load", "<=", (0.5,)),
        ("name like web%", "name", "like", ("web%",)),
        ("site == 'north pole'", "site", "==", ("north pole",)),
        ("site in north, south", "site", "in", ("north", "south")),
        ("site not  in [north,south]", "site", "not in", ("north", "south")),
        ("cpus in 1,2", "cpus", "in", (1, 2)),
        ("owner is known", "owner", "known", ()),
        ("missing is  unknown", "missing", "unknown", ()),
        ("seen < 2026-11-01T12:00:00Z", "seen", "<", ("2026-11-01T12:00:00Z",)),
        ("seen < 2 h ago", "seen", "<", ("2026-11-01T10:00:00Z",)),
        ({"column": "name", "value": "a == b"}, "name", "==", ("a == b",)),
        ({"column": "site", "operator": "in", "value": ["north", "a,b"]}, "site", "in", ("north", "a,b")),
        ({"column": "cpus", "operator": ">=", "value": 4}, "cpus", ">=", (4,)),
    ],
)
def test_what_is_understood(text, column, operator, values):
    now = datetime.datetime(2026, 11, 1, 12, tzinfo=datetime.timezone.utc)
    assert conditions.parse("host", text, now) == conditions.Condition(column, operator, values)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("memroy >= 1 GiB", "unknown_column"),
        ("memory >= 1 GiBi", "unknown_unit"),
        ("memory >= 1 parsec", "unknown_unit"),
        ("cpus >= 4 GiB", "unknown_unit"),
        ("seen < 2 fortnights ago", "unknown_unit"),
        ("cpus >= 1.5", "invalid_value"),
        ("cpus >= many", "invalid_value"),
        ("memory >= ", "invalid_value"),
        ("load < 1e999", "invalid_value"),
        ("seen < yesterday", "invalid_value"),
        ("seen < 99999999999 d ago", "invalid_value"),
        ("name like a\0b", "invalid_value"),
        ("site in ,", "invalid_value"),
        ("name < web", "invalid_condition"),
        ("memory like 1%", "invalid_condition"),
        ("memory", "invalid_condition"),
        ("1 = 1", "invalid_condition"),
        ("name == a; DROP TABLE host", None),
        ("", "invalid_condition"),
        (7, "invalid_condition"),
        ({"column": "name"}, "invalid_value"),
        ({"column": "name", "operator": "~", "value": "x"}, "invalid_condition"),
        ({"column": "name", "value": "x", "or": 1}, "invalid_condition"),
    ],
)
def test_what_is_refused(text, code):
    if code is None:
        assert conditions.parse("host", text).values == ("a; DROP TABLE host",)  # a value like any other
        return
    with pytest.raises(GridError) as caught:
        conditions.parse("host", text)
    assert caught.value.code == code and caught.value.remedy


def test_a_column_of_another_kind_is_unknown_and_a_near_one_is_named():
    with pytest.raises(GridError) as caught:
        conditions.parse("provider", "owner == alice")
    assert caught.value.code == "unknown_column"
    with pytest.raises(GridError) as caught:
        conditions.parse("host", "memory_fre > 1")
    assert "did you mean memory_free" in str(caught.value) and caught.value.details["column"] == "memory_fre"


def ask(**options):
    return question.read(options)


def test_the_four_machine_question():
    asked = ask(of="machine", size=4, same=["network"], sum=["memory >= 512 MiB", "memory <= 1 GiB"], within="1s")
    assert (asked.size, asked.same, asked.sums, asked.within) == (4, ("network",), {"memory": (512 * MIB, GIB)}, 1.0)
    assert asked.shown(asked.members[0]) == ("name", "uuid", "site", "state", "network", "memory")


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        (["memory == 1 GiB"], (GIB, GIB)),
        (["memory < 1 GiB"], (-math.inf, GIB - 1)),
        (["memory > 1 GiB", "memory > 2 GiB"], (2 * GIB + 1, math.inf)),
        ("memory <= 1 GiB", (-math.inf, GIB)),
    ],
)
def test_bounds_of_sums(bounds, expected):
    assert ask(size=2, sum=bounds).sums["memory"] == expected


def test_a_sum_of_broken_numbers_has_strict_bounds():
    low, high = ask(size=2, sum=["load > 1.5", "load < 2"]).sums["load"]
    assert 1.5 < low < 1.5000001 and 1.9999999 < high < 2


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"sum": ["memory >= 2 GiB", "memory <= 1 GiB"]}, "impossible_sum"),
        ({"sum": ["memory <= 1 GiB"], "where": ["memory >= 512 MiB"], "size": 3}, "impossible_sum"),
        ({"sum": ["memory >= 4 GiB"], "where": ["memory <= 1 GiB"], "size": 3}, "impossible_sum"),
        ({"sum": ["memory < 0"], "size": 2}, "impossible_sum"),
        ({"sum": ["name >= 1"], "size": 2}, "impossible_sum"),
        ({"sum": ["memory != 1 GiB"], "size": 2}, "impossible_sum"),
        ({"sum": ["memroy >= 1 GiB"], "size": 2}, "unknown_column"),
        ({"sum": ["memory >= 1 parsec"], "size": 2}, "unknown_unit"),
        ({"within": "0"}, "invalid_deadline"),
        ({"within": 0}, "invalid_deadline"),
        ({"within": "0 ms"}, "invalid_deadline"),
        ({"within": "-1 s"}, "invalid_deadline"),
        ({"within": "soon"}, "invalid_deadline"),
        ({"of": "unicorn"}, "unknown_kind"),
        ({"size": 0, "of": "host"}, None),
        ({"size": -1}, "invalid_question"),
        ({"size": 65}, "invalid_question"),
        ({"limit": 0}, "invalid_question"),
        ({"limit": 10**9}, "invalid_question"),
        ({"same": ["colour"], "size": 2}, "unknown_column"),
        ({"columns": ["colour"]}, "unknown_column"),
        ({"order": ["colour"]}, "unknown_column"),
        ({"order": ["memory desc"]}, "invalid_question"),
        ({"order": ["memory"], "size": 2}, "invalid_question"),
        ({"order": ["sum(name)"], "size": 2}, "invalid_question"),
        ({"order": ["db.memory"]}, "invalid_question"),
        ({"join": ["db.memory <= host.memory"]}, "invalid_question"),
        ({"members": {"db": {}}}, "invalid_question"),
        ({"members": {**PAIR, "d b": {}}}, "invalid_question"),
        ({"members": {**PAIR, "x": {"size": 2}}}, "invalid_question"),
        ({"members": PAIR, "where": ["cpus == 1"]}, "invalid_question"),
        ({"members": PAIR, "join": ["db.memory <= cat.memory"]}, "invalid_question"),
        ({"members": PAIR, "join": ["db.memory <= db.disk"]}, "invalid_question"),
        ({"members": PAIR, "join": ["db.memory == host.name"]}, "invalid_question"),
        ({"members": PAIR, "join": ["db.colour == host.name"]}, "unknown_column"),
        ({"include": ["real"]}, "invalid_question"),
        ({"include": ["physical"], "of": "machine"}, "invalid_question"),
        ({"include": ["virtual"], "of": "provider"}, "invalid_question"),
        ({"scope": {"latency": "20 ms"}}, "invalid_question"),
        ({"scope": {"near": "north", "latency": "20 miles"}}, "invalid_duration"),
        ({"scope": {"near": "north"}, "of": "image"}, "invalid_question"),
    ],
)
def test_questions_that_are_refused(options, code):
    if code is None:
        assert ask(**options).size == 1
        return
    with pytest.raises(GridError) as caught:
        ask(**options)
    assert caught.value.code == code and caught.value.remedy


def test_the_defaults_of_the_options_are_a_question():
    defaults = {name: option.get("default") for name, option in FIND["argument_spec"].items()}
    assert question.read(defaults) == question.read({})
    assert FIND["argument_spec"]["of"]["choices"] == list(conditions.COLUMNS)


def test_named_members_show_what_they_are_asked_for():
    asked = ask(
        members=PAIR,
        join=["db.provider == host.name", "db.memory <= host.memory_available"],
        order=["-db.memory"],
        columns=None,
    )
    assert asked.shown(asked.members[0]) == ("name", "uuid", "site", "state", "memory", "provider")
    assert asked.shown(asked.members[1]) == ("name", "uuid", "memory_available")
    assert (asked.order[0].place, asked.order[0].descending) == (0, True)
