# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the overlay's hosts are told of machines that move."""

from __future__ import annotations

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._migration import forwarding
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.plan.guests import follow

MAC = "02:00:00:00:00:0A"
LAN = {"name": "lan", "home": "home1", "shortcuts": [["p1", "p2"], ["p3", "p2"], ["p3", "p4"]]}


def wave(status="prepared", network="lan", **more):
    machine = {
        "name": "a",
        "uuid": "a",
        "mac": MAC,
        "network": network,
        "source": "p1",
        "target": "p2",
        "status": status,
        **more,
    }
    return [{"source": "p1", "target": "p2", "machines": [machine]}]


def by_host(machines, networks=(LAN,)):
    return {
        notice["host"]: {"machines": notice["machines"], "macs": notice["macs"]}
        for notice in forwarding.notices(machines, networks)
    }


def announced(machines):
    return {notice["host"]: notice["announce"] for notice in forwarding.notices(machines, [LAN]) if notice["announce"]}


def told(status, **more):
    return by_host(wave(status, **more))


def entry(host):
    return {"provider": host, "network": "lan", "mac": MAC.lower()}


def test_before_the_target_admits_it_and_shortcuts_to_the_two_are_forgotten():
    assert told("prepared") == {
        "p2": {"machines": [entry("p2")], "macs": []},
        "p3": {"machines": [], "macs": [MAC.lower()]},
    }
    assert told("failed") == {}
    assert announced(wave("prepared")) == {}
    assert told("prepared", network="virtuoso") == {} and told("prepared", mac=None) == {}


@pytest.mark.parametrize(
    ("status", "row", "where"),
    [
        ("received", {}, "p2"),
        ("restore", {"failure": {"code": "x"}}, "p1"),
        ("failed", {"failure": {"code": "move_failed", "copy": "source"}}, "p1"),
        # Nobody knows where it is: both ends go on admitting it.
        ("failed", {"failure": {"code": "move_failed", "copy": None}}, None),
        ("failed", {"failure": {"code": "host_unreachable"}}, None),
    ],
)
def test_after_all_are_told_where_it_is(status, row, where):
    found = told(status, row=row)
    assert found == ({host: {"machines": [entry(where)], "macs": []} for host in ("p1", "p2", "p3")} if where else {})
    assert announced(wave(status, row=row)) == ({"p2": [MAC.lower()]} if where == "p2" else {})


def test_source_and_target_admit_it_while_it_moves_and_one_of_them_afterwards():
    parts = {
        host: {"networks": [{"name": "lan"}], "guests": [], "forwarding": [], "links": []} for host in ("p1", "p2")
    }
    parts["p1"] = follow(parts["p1"], "p1", [entry("p1")])
    for status, expected in (("prepared", ["p1", "p2"]), ("received", ["p2"])):
        for host, mine in told(status).items():
            if host in parts:
                parts[host] = follow(parts[host], host, mine["machines"], mine["macs"])
        assert [host for host in parts if parts[host]["guests"]] == expected


def after(machines, results, announcements=None):
    return forwarding.forwarded(machines, [LAN], results, announcements or {})


def test_one_that_its_target_does_not_admit_stays():
    bad = {"msg": "no", "failure": {"code": "overlay_failed"}}
    (journey,) = after(wave(), {"p2": bad})["wave"]
    machine = journey["machines"][0]
    assert machine["status"] == "failed" and machine["row"]["failure"]["code"] == "forwarding_failed"
    # Another host's shortcut isn't worth that.
    assert after(wave(), {"p2": {"part": {}}, "p3": bad}) == {"wave": wave(), "warnings": []}
    arrived = wave("received", row={"name": "a", "changed": True, "provider": "p2"})
    (journey,) = after(arrived, {"p1": bad})["wave"]
    row = journey["machines"][0]["row"]
    assert row["failed"] and row["failure"]["code"] == "forwarding_failed"
    assert row["provider"] == "p2" and "where it should be" in row["msg"]
    assert after(arrived, {host: {"part": {}} for host in ("p1", "p2", "p3")})["wave"] == arrived


def test_machines_that_were_settled_after_an_interruption():
    done = [{"uuid": "a", "provider": "p2"}, {"uuid": "a", "provider": "p1"}, {"uuid": "b", "provider": "p1"}]
    seen = [
        {"name": uuid, "uuid": uuid, "mac": MAC, "network": "lan", "provider": host}
        for uuid, host in (("a", "p2"), ("c", "p1"))
    ]
    rest = forwarding.settled(done, seen)
    found = by_host(rest)
    assert {host: mine["machines"] for host, mine in found.items()} == {
        host: [entry("p2")] for host in ("p1", "p2", "p3")
    }
    assert announced(rest) == {"p2": [MAC.lower()]} and [journey["networks"] for journey in rest] == [["lan"]] * 2


def test_each_card_is_told_on_its_own_network():
    found = told("prepared", network="virtuoso", extra_networks=["lan"])
    mac = forwarding.card_mac("lan", MAC)
    assert found["p2"]["machines"] == [{"provider": "p2", "network": "lan", "mac": mac}] and mac != MAC.lower()
    row = {"name": "a", "uuid": "a", "mac": MAC, "network": "lan", "extra_networks": ["san"], "provider": "p2"}
    (rest,) = forwarding.settled([{"uuid": "a", "provider": "p1"}], [row])
    assert (rest["source"], rest["target"], rest["networks"]) == ("p1", "p2", ["lan", "san"])
    notices = forwarding.notices([rest], [LAN, {"name": "san"}])
    assert {place["network"] for notice in notices for place in notice["machines"]} == {"lan", "san"}


def test_one_that_let_go_of_its_source_is_told_to_be_where_it_should_be():
    broken = {"p1": {"failure": {"code": "x"}, "msg": "no"}}
    (journey,) = after(wave("done", row={"name": "a", "changed": True}), broken)["wave"]
    assert "it is where it should be" in journey["machines"][0]["row"]["msg"]


def test_what_no_row_tells_is_a_warning():
    broken, fine = {"msg": "no nft", "failure": {"code": "x"}}, {"part": {}, "actions": []}
    arrived = wave("received", row={"name": "a", "changed": True, "provider": "p2"})
    assert after(arrived, {"p1": broken, "p2": fine}, {"p2": fine})["warnings"] == []
    rest = forwarding.settled(
        [{"uuid": "a", "provider": "p1"}], [{"uuid": "a", "mac": MAC, "network": "lan", "provider": "p2"}]
    )
    found = after(rest, {"p1": broken, "p2": fine})
    (told_of,) = found["warnings"]
    assert "p1" in told_of and "no nft" in told_of and found["wave"] == rest
    (unannounced,) = after([], {}, {"p2": {"unreachable": True, "msg": "gone"}, "p3": {"actions": []}})["warnings"]
    assert "p2" in unannounced and "gone" in unannounced
