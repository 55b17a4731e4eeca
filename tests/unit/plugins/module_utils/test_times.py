# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Points in time and lengths of time, as people write them."""

from __future__ import annotations

import datetime

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._times import before, now, parse_microseconds, parse_time


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2027-03-01T08:00:00Z", "2027-03-01T08:00:00Z"),
        ("2027-03-01T08:00:00", "2027-03-01T08:00:00Z"),
        ("2027-03-01 08:00:00+02:00", "2027-03-01T06:00:00Z"),
        ("2027-03-01", "2027-03-01T00:00:00Z"),
        (datetime.datetime(2027, 3, 1, 8, tzinfo=datetime.timezone.utc), "2027-03-01T08:00:00Z"),
    ],
)
def test_times(value, expected):
    assert parse_time(value) == expected and parse_time(expected) == expected


@pytest.mark.parametrize(
    "value", ["", "noon", "2027-13-01", 5, None, "0001-01-01", "9999-12-31T23:59:59-10:00", "2027-03-01T08:00:00Z; x"]
)
def test_what_is_no_time(value):
    with pytest.raises(GridError) as caught:
        parse_time(value)
    assert caught.value.code == "invalid_time" and caught.value.remedy


@pytest.mark.parametrize(
    ("value", "expected"),
    [("100 ms", 100000), ("0.5s", 500000), ("20us", 20), (1000, 1000), ("1000", 1000), (" 1 s ", 1000000)],
)
def test_durations(value, expected):
    assert parse_microseconds(value) == expected and parse_microseconds(expected) == expected


@pytest.mark.parametrize("value", ["", "long", "1 h", "-1 ms", True, None, "0.5 us", "1e3", "99999999999 s"])
def test_what_is_no_duration(value):
    with pytest.raises(GridError) as caught:
        parse_microseconds(value)
    assert caught.value.code == "invalid_duration"


def test_bounds_of_a_duration_are_allowed():
    assert parse_microseconds("1 ms", minimum=1000, maximum=1000) == 1000
    for value in ("999us", "1001us"):
        with pytest.raises(GridError):
            parse_microseconds(value, minimum=1000, maximum=1000)


def test_before_and_now():
    assert before(86400, "2027-03-01T00:00:10Z") == "2027-02-28T00:00:10Z"
    assert before(10**12, "2027-03-01T00:00:00Z") == "0001-01-01T00:00:00Z"
    then = now()
    assert parse_time(then) == then
