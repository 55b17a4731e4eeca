# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table at the end of a play."""

from __future__ import annotations

from ansible_collections.virtuoso.grid.plugins.module_utils._play import report
from ansible_collections.virtuoso.grid.plugins.module_utils._play.report import cell, join, refusal, steps_of, table


def test_later_steps_add_to_a_machine_and_keep_its_order():
    rows = join(
        [
            [{"name": "a", "state": "future", "changed": True}, {"name": "b"}],
            [{"name": "a", "state": "running", "provider": "p", "uuid": None}],
        ]
    )
    assert rows == [
        {"name": "a", "state": "running", "provider": "p", "changed": True},
        {"name": "b", "changed": False},
    ]


def test_the_first_failure_stays():
    rows = join(
        [
            [{"name": "a"}],
            [{"name": "a", "failed": True, "msg": "first", "failure": {"code": "x"}}],
            [{"name": "a", "failed": True, "msg": "second", "failure": {"code": "y"}}],
            [{"name": "a", "state": "running"}],
        ]
    )
    assert rows[0]["failed"] and rows[0]["msg"] == "first" and cell(rows[0], "state") == "failed: x"


def test_a_name_given_twice_is_shown_twice():
    rows = join(
        [
            [
                {"name": "a", "state": "future"},
                {"name": "a", "failed": True, "msg": "twice", "failure": {"code": "duplicate_name"}},
            ]
        ]
    )
    assert [row.get("failed", False) for row in rows] == [False, True]


def test_cells_show_what_people_want():
    row = {
        "state": "running",
        "restart_required": True,
        "addresses": ["198.18.101.5"],
        "display": {"type": "vnc", "host": "127.0.0.1", "port": 5900},
        "image": {"name": "tiny@1", "digest": "sha256:0"},
        "spec": {"memory": 2**30, "owner": "alice"},
    }
    shown = {
        column: cell(row, column) for column in ("state", "address", "console", "image", "memory", "owner", "provider")
    }
    assert shown == {
        "state": "running, restart required",
        "address": "198.18.101.5",
        "console": "vnc 127.0.0.1:5900",
        "image": "tiny@1",
        "memory": "1 GiB",
        "owner": "alice",
        "provider": "-",
    }


def test_guests_cannot_steer_the_terminal():
    assert "\x1b" not in cell({"address": None, "addresses": ["\x1b[2J1.2.3.4"]}, "address")


def test_an_address_that_was_only_ordered_is_shown_as_ordered():
    assert cell({"addresses": ["198.18.0.5"], "address": {"ip": "192.0.2.7/24"}}, "address") == "198.18.0.5"
    assert cell({"addresses": [], "address": {"ip": "192.0.2.7/24"}}, "address") == "192.0.2.7 (ordered)"
    assert cell({"addresses": [], "spec": {"address": {"ip": "192.0.2.7"}}}, "address") == "192.0.2.7 (ordered)"
    assert cell({"addresses": [], "address": None}, "address") == "-"


def test_columns_are_as_wide_as_their_widest_cell():
    assert table([{"name": "a", "state": "running"}, {"name": "long-name"}], ["name", "state"]) == [
        "NAME       STATE",
        "a          running",
        "long-name  -",
    ]


def test_what_a_machine_got_and_its_snapshots():
    got = {"usage": {"cpu": 24.8, "cpu_ceiling": 25.0}, "snapshots": [{"name": "a"}, {"name": "b"}]}
    assert (cell(got, "cpu"), cell(got, "snapshots")) == ("24.8 of 25.0 %", "a, b")
    assert (
        cell({"usage": None, "snapshots": []}, "cpu")
        == cell({"usage": None, "snapshots": []}, "snapshots")
        == cell({}, "snapshots")
        == "-"
    )


def test_what_failed_is_called_what_it_is():
    rows = [
        {"name": "network lan", "failed": True, "msg": "somebody else's FRR", "failure": {"code": "foreign_frr"}},
        {"name": "network other"},
    ]
    told = refusal(rows, "networks")
    assert told["failed"] and told["failure"] == {"code": "some_failed", "codes": ["foreign_frr"]}
    assert told["msg"] == "1 of 2 networks could not be served:\n- somebody else's FRR"
    assert refusal(rows[1:], "networks") == {}


def test_a_host_s_steps_may_come_together():
    host = {"started": [{"name": "a", "state": "running"}], "observed": [{"name": "a", "addresses": ["1.2.3.4"]}]}
    steps = steps_of([[{"name": "a", "state": "future"}], host])
    assert steps == [[{"name": "a", "state": "future"}], host["started"], host["observed"]]


WIDE = [
    {
        "name": "a" * 39,
        "reference": "urn:uuid:0c5a9d1e-6f0f-4f0e-8f4c-2a7a9f0f3f55",
        "provider": "p" * 30,
        "state": "running",
        "memory": 2**30,
        "addresses": ["2001:db8:1234:5678:9abc:def0:1234:5678"],
        "display": {"type": "vnc", "host": "127.0.0.1", "port": 5900},
        "screenshot": {"path": "/home/alice/.local/share/virtuoso/screenshots/0c5a.png"},
    }
]
COLUMNS = ["name", "reference", "provider", "state", "memory", "address", "console", "screenshot"]


def test_a_table_fits_into_a_terminal_and_with_v_has_all():
    told = report.shown(WIDE, COLUMNS, 0)
    assert told == ["name", "provider", "state", "address"]
    assert max(map(len, report.table(WIDE, told))) <= 120
    assert report.shown(WIDE, COLUMNS, 1) == COLUMNS
    short = [{**WIDE[0], "name": "web1", "provider": "p1"}]
    assert report.shown(short, COLUMNS, 0) == ["name", "provider", "state", "memory", "address", "console"]


def test_where_the_screenshots_are_is_told_once():
    assert report.pictures(WIDE * 2) == (
        "Screenshots, named by uuid, are in /home/alice/.local/share/virtuoso/screenshots"
    )
    assert report.pictures([{"name": "web1"}]) is None
