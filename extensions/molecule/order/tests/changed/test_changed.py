# SPDX-License-Identifier: GPL-3.0-or-later
"""After one order was changed, another cancelled, and a third made by variables."""

from __future__ import annotations

testinfra_hosts = ["local://"]

MIB = 2**20


def test_changed_one_is_as_it_was_asked_for_last(orders):
    spec = orders["mol-web1"]["spec"]
    assert (spec["memory"], spec["tags"]) == (192 * MIB, ["front"])


def test_changed_one_keeps_its_uuid_and_its_history(orders, rows):
    events = rows("SELECT what FROM event WHERE object = ? ORDER BY id", orders["mol-web1"]["uuid"])
    assert [event["what"] for event in events] == ["ordered", "changed"]


def test_cancelled_one_left_nothing(orders, rows, told):
    assert "mol-own1" not in orders
    assert "mol-own1" not in told
    there = {order["uuid"] for order in orders.values()}
    assert {row["uuid"] for row in rows("SELECT uuid FROM host")} == there
    # What the orders have in common, their network, stays
    assert {row["kind"] for row in rows("SELECT kind FROM object WHERE uuid NOT IN (SELECT uuid FROM host)")} == {
        "network"
    }
    assert {row["uuid"] for row in rows("SELECT uuid FROM futures")} == there
    assert {row["object"] for row in rows("SELECT object FROM event")} == there


def test_one_ordered_by_variables_is_like_any_other(orders):
    order = orders["mol-survey1"]
    assert (order["owner"], order["spec"]["image"], order["spec"]["memory"], order["spec"]["tags"]) == (
        "alice",
        "tiny",
        64 * MIB,
        [],
    )
    assert [user["name"] for user in order["spec"]["users"]] == ["alice"]


def test_those_not_in_the_list_are_left_alone(orders):
    assert orders.keys() == {"mol-web1", "mol-web2", "mol-db1", "mol-survey1"}
    assert orders["mol-web2"]["owner"] == "bob"
