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


def told(status, moment, **more):
    return forwarding.told(forwarding.moved(wave(status, **more), moment), [LAN], moment)


def entry(host):
    return {"provider": host, "network": "lan", "mac": MAC.lower()}


def test_before_the_target_admits_it_and_shortcuts_to_the_two_are_forgotten():
    assert told("prepared", "before") == {
        "p2": {"machines": [entry("p2")], "macs": []},
        "p3": {"machines": [], "macs": [MAC.lower()]},
    }
    assert told("failed", "before") == {}
    assert told("prepared", "before", network="virtuoso") == {} and told("prepared", "before", mac=None) == {}


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
    found = told(status, "after", row=row)
    assert found == ({host: {"machines": [entry(where)], "macs": []} for host in ("p1", "p2", "p3")} if where else {})
    assert forwarding.announced(forwarding.moved(wave(status, row=row), "after"), [LAN]) == (
        {"p2": [MAC.lower()]} if where == "p2" else {}
    )


def test_source_and_target_admit_it_while_it_moves_and_one_of_them_afterwards():
    parts = {
        host: {"networks": [{"name": "lan"}], "guests": [], "forwarding": [], "links": []} for host in ("p1", "p2")
    }
    parts["p1"] = follow(parts["p1"], "p1", [entry("p1")])
    for moment, status, expected in (("before", "prepared", ["p1", "p2"]), ("after", "received", ["p2"])):
        for host, mine in told(status, moment).items():
            if host in parts:
                parts[host] = follow(parts[host], host, mine["machines"], mine["macs"])
        assert [host for host in parts if parts[host]["guests"]] == expected


def test_one_that_its_target_does_not_admit_stays():
    bad = {"msg": "no", "failure": {"code": "overlay_failed"}}
    (journey,) = forwarding.forwarded(wave(), "before", [LAN], {"p2": bad})
    assert (
        journey["machines"][0]["status"] == "failed"
        and journey["machines"][0]["row"]["failure"]["code"] == "forwarding_failed"
    )
    # Another host's shortcut isn't worth that.
    assert forwarding.forwarded(wave(), "before", [LAN], {"p2": {"part": {}}, "p3": bad}) == wave()
    arrived = wave("received", row={"name": "a", "changed": True, "provider": "p2"})
    (journey,) = forwarding.forwarded(arrived, "after", [LAN], {"p1": bad})
    row = journey["machines"][0]["row"]
    assert (
        row["failed"]
        and row["failure"]["code"] == "forwarding_failed"
        and row["provider"] == "p2"
        and "where it should be" in row["msg"]
    )
    assert forwarding.forwarded(arrived, "after", [LAN], {host: {"part": {}} for host in ("p1", "p2", "p3")}) == arrived


def test_those_that_came_to_rest_after_an_interruption():
    done = [{"uuid": "a", "provider": "p2"}, {"uuid": "a", "provider": "p1"}, {"uuid": "b", "provider": "p1"}]
    seen = [
        {"name": uuid, "uuid": uuid, "mac": MAC, "network": "lan", "provider": host}
        for uuid, host in (("a", "p2"), ("c", "p1"))
    ]
    found = forwarding.told(forwarding.came_to_rest(done, seen), [LAN])
    assert {host: mine["machines"] for host, mine in found.items()} == {
        host: [entry("p2")] for host in ("p1", "p2", "p3")
    }


def test_each_card_is_told_on_its_own_network():
    found = told("prepared", "before", network="virtuoso", extra_networks=["lan"])
    mac = forwarding.card_mac("lan", MAC)
    assert found["p2"]["machines"] == [{"provider": "p2", "network": "lan", "mac": mac}] and mac != MAC.lower()
    row = {"name": "a", "uuid": "a", "mac": MAC, "network": "lan", "extra_networks": ["san"], "provider": "p2"}
    rest = forwarding.came_to_rest([{"uuid": "a", "provider": "p1"}], [row])
    assert [(card["network"], card["at"], card["source"]) for card in rest] == [
        ("lan", "p2", "p1"),
        ("san", "p2", "p1"),
    ]


def test_one_that_let_go_of_its_source_is_told_to_be_where_it_should_be():
    broken = {"p1": {"failure": {"code": "x"}, "msg": "no"}}
    (journey,) = forwarding.forwarded(wave("done", row={"name": "a", "changed": True}), "after", [LAN], broken)
    assert "it is where it should be" in journey["machines"][0]["row"]["msg"]


def test_what_nobody_else_tells_is_a_warning():
    broken, fine = {"msg": "no nft", "failure": {"code": "x"}}, {"part": {}, "actions": []}
    assert forwarding.untold({"p1": broken, "p2": fine}, {"p2": fine}, rows=True) == []
    (told_of,) = forwarding.untold({"p1": broken, "p2": fine}, {}, rows=False)
    assert "p1" in told_of and "no nft" in told_of
    (announced,) = forwarding.untold({}, {"p2": {"unreachable": True, "msg": "gone"}, "p3": {"actions": []}}, rows=True)
    assert "p2" in announced and "gone" in announced
