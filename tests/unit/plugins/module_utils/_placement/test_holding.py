# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Placement on a store: what is held is seen by every play, also by those that run at the same time."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from ansible_collections.virtuoso.grid.plugins.module_utils._information.inventory import views
from ansible_collections.virtuoso.grid.plugins.module_utils._information.registration import orders
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store import query

GIB = 2**30
IMAGE = {"name": "tiny@1", "digest": "sha256:" + "a" * 64, "size": GIB, "virtual_size": 2 * GIB}
ORDERING = {"owner": "alice", "images": None, "absent": False, "check": False}


def code(result):
    return result.get("failure", {}).get("code")


def test_a_placed_machine_holds_its_room(plays):
    machines = plays.order("web1")
    result = plays.place(machines, {})[0]
    assert (result["provider"], result["site"], result["actions"], result["reasons"]) == ("p1", "north", ["place"], {})
    row = plays.row("web1")
    assert (row["provider"], row["site"], row["disk"], views.state_of(row)) == ("p1", "north", 2 * GIB, "placed")


def test_again_changes_nothing(plays):
    machines = plays.order("web1")
    plays.place(machines, {}, {})
    again = plays.place(machines, {}, {})[0]
    assert (again["provider"], again["changed"], again["actions"]) == ("p1", False, []) and plays.diffs == []


def test_another_play_finds_less(plays):
    first, second = plays.order("web1", memory="10 GiB"), plays.order("web2", memory="10 GiB")
    assert plays.place(first, {})[0]["provider"] == "p1"
    refused = plays.place(second, {})[0]
    assert code(refused) == "no_provider" and refused["failure"]["reasons"] == {
        "p1": "needs 10 GiB of memory, 6 GiB free"
    }
    assert "p1 needs 10 GiB of memory, 6 GiB free" in refused["msg"]


def test_a_cancelled_order_holds_nothing(plays):
    plays.place(plays.order("web1", memory="10 GiB"), {})
    with plays.store.writing() as connection:
        orders.serve(connection, ["web1"], **{**ORDERING, "absent": True})
    assert plays.place(plays.order("web2", memory="10 GiB"), {})[0]["provider"] == "p1"


def test_a_machine_that_is_defined_is_counted_once(plays):
    machine = plays.order("web1", memory="10 GiB")[0]
    plays.place([machine], {})
    other = plays.order("web2", memory="6 GiB")
    defined = {"memory_allocated": 10 * GIB, "machines": [{"uuid": machine["uuid"], "state": "running"}]}
    assert plays.place(other, defined, check=True)[0]["provider"] == "p1"
    plays.appear(machine, "p1")
    stale = plays.place(plays.order("web3", memory="7 GiB"), {})[0]  # measured before it was defined
    assert code(stale) == "no_provider"


def test_check_mode_chooses_the_same_and_holds_nothing(plays):
    machines = plays.order("web1", "web2")
    checked, diffs = plays.place(machines, {}, {}, check=True), plays.diffs
    assert plays.row("web1")["provider"] is None
    assert checked == plays.place(machines, {}, {}) and diffs == plays.diffs


def test_check_mode_places_what_is_not_ordered_yet(plays, tmp_path):
    machines = [
        {"name": f"web{number}", "uuid": None, "memory": 10 * GIB, "vcpus": 1, "image": IMAGE} for number in range(3)
    ]
    results = plays.place(machines, {}, {}, check=True)
    assert [result.get("provider") for result in results] == ["p1", "p2", None] and not list(tmp_path.iterdir())
    assert code(plays.place(machines, {}, {})[0]) == "not_ordered"


def test_a_machine_on_an_unreachable_provider_fails_alone(plays):
    held, existing = plays.order("web1", "web2")
    plays.place([held, existing], {})
    plays.appear(existing, "p1")
    results = plays.place(
        [held, existing, *plays.order("web3")], {"unreachable": True, "reason": "libvirt is down"}, {}
    )
    assert [code(result) for result in results] == ["provider_unreachable", "provider_unreachable", None]
    assert all("libvirt is down" in result["msg"] for result in results[:2])
    assert results[2]["provider"] == "p2" and plays.row("web2")["provider"] == "p1"


def test_a_changed_image_is_held_anew(plays):
    machine = plays.order("web1")[0]
    plays.place([machine], {})
    other = {**IMAGE, "digest": "sha256:" + "b" * 64, "virtual_size": 4 * GIB}
    plays.place([{**machine, "image": other}], {})
    with plays.store.reading() as connection:
        images = {row["uuid"]: row["digest"] for row in query.images(connection)}
    row = plays.row("web1")
    assert images[row["image_uuid"]] == other["digest"] and row["disk"] == 4 * GIB


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"disk": GIB}, "disk_too_small"),
        ({"disk": "lots"}, "invalid_size"),
        ({"memory": -1}, "invalid_size"),
        ({"vcpus": 0}, "invalid_vcpus"),
        ({"vcpus": "²"}, "invalid_vcpus"),
        ({"uuid": None}, "not_ordered"),
        ({"uuid": ["web1"]}, "not_ordered"),
        ({"name": "another"}, "not_ordered"),
        ({"uuid": "11111111-1111-4111-8111-111111111111"}, "not_ordered"),
        ({"name": None}, "invalid_order"),
    ],
)
def test_a_bad_machine_fails_alone(plays, fields, expected):
    first, second = plays.order("web1", "web2")
    bad, good = plays.place([{**first, **fields}, second], {})
    assert code(bad) == expected and good["provider"] == "p1"


def test_a_name_twice_fails_both(plays):
    machine = plays.order("web1")[0]
    assert [code(result) for result in plays.place([machine, machine], {})] == ["duplicate_name", "duplicate_name"]


@pytest.mark.parametrize(
    "fact",
    [{"memory": None}, {"cpus": -1}, {"disk_free": "much"}, {"memory_free": True}, {"cpus_allocated": float("nan")}],
)
def test_a_provider_without_measurements_is_not_used(plays, fact):
    failed = plays.place(plays.order("web1"), fact)[0]
    assert failed["failure"]["reasons"] == {"p1": "did not report what it has"}


LATER = "2027-01-02T00:00:01Z"
NOON = "2027-01-01T00:00:00Z"
LONG_AGO = "2020-01-01T00:00:00Z"
SHORT = {"hold": 86400, "now": LATER}


def held_since(plays, name, time):
    with plays.store.writing() as connection:
        uuid = query.machines(connection, names=[name])[0]["uuid"]
        connection.execute(sa.text("UPDATE event SET time = :time WHERE object = :uuid"), {"time": time, "uuid": uuid})


def test_a_hold_expires_for_others_and_not_before(plays):
    machines = plays.order("web1", memory="10 GiB")
    plays.place(machines, {})
    held_since(plays, "web1", "2027-01-01T00:00:02Z")
    other = plays.order("web2", memory="10 GiB")
    assert code(plays.place(other, {}, check=True, **SHORT)[0]) == "no_provider"
    held_since(plays, "web1", "2027-01-01T00:00:01Z")
    assert plays.place(other, {}, check=True, **SHORT)[0]["provider"] == "p1"


def test_an_expired_hold_is_taken_up_again_where_there_is_room(plays):
    machines = plays.order("web1", memory="10 GiB")
    plays.place(machines, {}, {})
    held_since(plays, "web1", LONG_AGO)
    again = plays.place(machines, {}, {})[0]
    assert (again["provider"], again["changed"]) == ("p1", False)
    with plays.store.reading() as connection:
        assert [event["what"] for event in query.events(connection, machines[0]["uuid"])].count("placed") == 2
    assert code(plays.place(plays.order("web2", memory="10 GiB"), {}, {"unreachable": True})[0]) == "no_provider"


def test_an_expired_hold_gives_way_and_goes_elsewhere(plays):
    first, second = plays.order("web1", memory="10 GiB"), plays.order("web2", memory="10 GiB")
    plays.place(first, {}, {})
    held_since(plays, "web1", LONG_AGO)
    assert plays.place(second, {}, {"unreachable": True})[0]["provider"] == "p1"
    assert plays.place(first, {}, {})[0]["provider"] == "p2"


def test_an_expired_hold_on_an_unreachable_provider_is_not_moved(plays):
    machines = plays.order("web1")
    plays.place(machines, {}, {})
    held_since(plays, "web1", LONG_AGO)
    assert code(plays.place(machines, {"unreachable": True}, {})[0]) == "provider_unreachable"


def test_a_machine_that_exists_holds_for_ever(plays):
    machine = plays.order("web1", memory="10 GiB")[0]
    plays.place([machine], {})
    plays.appear(machine, "p1")
    held_since(plays, "web1", NOON)
    refused = plays.place(plays.order("web2", memory="16 GiB"), {}, **SHORT)[0]
    assert code(refused) == "no_provider"


def test_a_proposal_is_taken_where_it_still_fits(plays):
    machines = plays.order("web1", "web2")
    found = plays.propose(machines, {}, {}, within=1.0)
    assert sorted(found.values()) == ["p1", "p2"]
    swapped = {key: {"p1": "p2", "p2": "p1"}[provider] for key, provider in found.items()}
    results = plays.place(machines, {}, {}, proposal=swapped)
    assert {result["uuid"]: result["provider"] for result in results} == swapped


def test_a_proposal_that_came_too_late_is_not_followed(plays):
    first, second = plays.order("web1", memory="10 GiB"), plays.order("web2", memory="10 GiB")
    late = plays.propose(first, {}, {"unreachable": True})
    plays.place(second, {}, {"unreachable": True})
    assert plays.place(first, {}, {}, proposal=late)[0]["provider"] == "p2"
    assert set(late.values()) == {"p1"}


RESERVED = {
    "performance": {"reservation": {"period": "100 ms", "slice": "50 ms", "from": NOON, "to": "2027-03-01T00:00:00Z"}}
}


def test_a_reservation_is_written_with_its_machine_and_goes_with_it(plays):
    machine = plays.order("web1", vcpus=2, **RESERVED)[0]
    plays.place([machine], {}, now=LATER)
    row = plays.reservations()[machine["uuid"]]
    told = {
        key: row[key]
        for key in ("owner", "provider", "cpu_period_us", "cpu_slice_us", "memory", "begin", "end", "state")
    }
    assert told == {
        "owner": "alice",
        "provider": "p1",
        "cpu_period_us": 100000,
        "cpu_slice_us": 100000,
        "memory": GIB,
        "begin": NOON,
        "end": "2027-03-01T00:00:00Z",
        "state": "admitted",
    }
    plays.place([machine], {}, now=LATER)
    assert plays.reservations()[machine["uuid"]] == row
    with plays.store.writing() as connection:
        orders.serve(connection, ["web1"], **{**ORDERING, "absent": True})
    assert plays.reservations() == {}


def test_a_reservation_without_a_beginning_keeps_the_one_that_it_had(plays):
    machine = plays.order("web1", performance={"reservation": {"period": 1000, "slice": 1000}})[0]
    plays.place([machine], {}, now=NOON)
    before = plays.reservations()
    plays.place([machine], {}, now=LATER)
    assert plays.reservations() == before and before[machine["uuid"]]["begin"] == NOON


def test_a_changed_or_dropped_reservation_is_written_anew(plays):
    machine = plays.order("web1", **RESERVED)[0]
    plays.place([machine], {}, now=NOON)
    more = {"performance": {"reservation": {**RESERVED["performance"]["reservation"], "slice": "70 ms"}}}
    plays.place([{**machine, **more}], {}, now=NOON)
    assert plays.reservations()[machine["uuid"]]["cpu_slice_us"] == 70000
    plays.place([{**machine, "performance": {}}], {}, now=NOON)
    assert plays.reservations() == {}


def test_another_plays_reservation_is_not_admitted_beyond_the_bound(plays):
    """90 of 100 CPUs may be reserved."""
    big = {"performance": {"reservation": {**RESERVED["performance"]["reservation"], "slice": "100 ms"}}}
    first, second = plays.order("web1", vcpus=60, **big)[0], plays.order("web2", vcpus=31, **big)[0]
    third = plays.order("web3", vcpus=30, **big)[0]
    rows = plays.place([first, second, third], {}, now=NOON)
    assert [code(row) for row in rows] == [None, "no_provider", None]
    assert "31 CPUs reserved, 30 left at 2027-01-01T00:00:00Z" in rows[1]["failure"]["reasons"]["p1"]
    # what is over takes nothing
    assert plays.place([second], {}, now="2027-03-01T00:00:00Z")[0]["provider"] == "p1"


def test_a_quota_is_read_from_the_store(plays):
    plays.quotas({"owner": "alice", "memory": "2 GiB"})
    first, second = plays.order("web1", "web2"), plays.order("web3")
    assert [code(row) for row in plays.place(first, {})] == [None, None]
    refused = plays.place(second, {})[0]
    assert code(refused) == "quota_exceeded" and refused["failure"]["allowed"] == 2 * GIB
    with plays.store.writing() as connection:
        orders.serve(connection, ["web1"], **{**ORDERING, "absent": True})
    assert plays.place(second, {})[0]["provider"] == "p1"


def test_affinity_reaches_machines_of_earlier_plays(plays):
    plays.place(plays.order("db1", tags=["db"]), {}, {"memory_allocated": 8 * GIB})
    near, far = plays.order("web1", affinity=["tag:db"])[0], plays.order("web2", anti_affinity=["db1"])[0]
    crowded = [{"memory_allocated": 8 * GIB}, {}]
    assert [row["provider"] for row in plays.place([near, far], *crowded)] == ["p1", "p2"]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"goal": "fame"}, "invalid_goal"),
        ({"affinity": "web2"}, "invalid_order"),
        ({"affinity": ["../etc"]}, "invalid_affinity"),
        ({"affinity": ["nobody"]}, "affinity_unknown"),
        ({"affinity": ["web2"], "anti_affinity": ["web2"]}, "impossible_affinity"),
        ({"features": ["a b"]}, "invalid_feature"),
        ({"site": "no/where"}, "invalid_site"),
        ({"performance": {"reservation": {"slice": "1 ms"}}}, "invalid_reservation"),
        ({"performance": {"reservation": {"period": "1 h", "slice": "1 ms"}}}, "invalid_duration"),
        ({"performance": {"reservation": {"period": "1 s", "slice": "2 s"}}}, "invalid_duration"),
        ({"performance": {"reservation": {"period": "1 s", "slice": "1 s", "from": "noon"}}}, "invalid_time"),
        (
            {"performance": {"reservation": {"period": "1 s", "slice": "1 s", "from": LATER, "to": NOON}}},
            "invalid_reservation",
        ),
    ],
)
def test_a_bad_wish_fails_alone(plays, fields, expected):
    first, second, third = plays.order("web1", "web2", "web3")
    results = plays.place([{**first, **fields}, third], {})
    if expected == "impossible_affinity":
        results = plays.place([{**first, **fields}, second, third], {})
    assert code(results[0]) == expected and results[-1]["provider"] == "p1"
