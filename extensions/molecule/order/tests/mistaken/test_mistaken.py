# SPDX-License-Identifier: GPL-3.0-or-later
"""After a list of good and bad entries: the good ones are ordered, the bad ones left no trace."""

from __future__ import annotations

testinfra_hosts = ["local://"]


def test_good_ones_are_ordered(told):
    assert {told[name]["state"] for name in ("mol-good1", "mol-good2")} == {"future"}


def test_bad_ones_left_nothing(orders, rows):
    known = {"mol-web1", "mol-web2", "mol-db1", "mol-survey1", "mol-good1", "mol-good2"}
    assert orders.keys() == known
    assert {row["name"] for row in rows("SELECT name FROM host")} == known
    assert len(rows("SELECT uuid FROM object WHERE kind <> 'network'")) == len(known)


def test_another_owners_machine_is_as_it_was(orders):
    assert orders["mol-web2"]["owner"] == "bob"


def test_store_is_whole(rows):
    assert rows("PRAGMA integrity_check") == [{"integrity_check": "ok"}]
    assert rows("PRAGMA foreign_key_check") == []
