# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Registration: hosts and machines as seen, futures that came true, a lost store rebuilt, rows that go."""

from __future__ import annotations

import uuid as uuids

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._information.registration.orders import RESERVED_NAMES
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store import query, schema
from ansible_collections.virtuoso.grid.plugins.module_utils._times import FOREVER

WEB1 = {"name": "web1", "image": "tiny"}
OTHER = "11111111-1111-4111-8111-111111111111"


def code(result):
    return result.get("failure", {}).get("code")


def register_machine(grid, given):
    return grid.register(machines=[given])["machines"][0]


def test_a_provider_is_registered_once(grid, facts):
    assert grid.provider()["actions"] == ["register"]
    assert grid.provider()["actions"] == []
    with grid.store.reading() as connection:
        row = query.hosts(connection)[0]
        assert query.layer_places(connection) == {row["uuid"]: {facts["images"][0]["digest"]}}
    assert (row["name"], row["site"], row["kind"], row["address"], row["login"], row["memory"]) == (
        "provider1",
        "north",
        "provider",
        "198.18.0.21",
        "root",
        facts["memory"],
    )


def test_a_host_does_not_name_its_machines_which_it_would_outlive(grid, facts):
    grid.provider(facts={**facts, "machines": [{"uuid": OTHER, "name": "web1", "state": "running"}]})
    with grid.store.reading() as connection:
        assert OTHER not in repr(query.hosts(connection)) and "web1" not in repr(query.hosts(connection))


def test_measurements_are_kept_but_are_no_change(grid, facts):
    grid.provider()
    later = {**facts, "load": 9.5, "memory_free": 1, "images": []}
    assert grid.provider(facts={**later, "machines": [{"uuid": OTHER}]})["changed"] is False
    later.pop("machines", None)
    with grid.store.reading() as connection:
        assert query.hosts(connection)[0]["facts"] == later
        assert query.layer_places(connection) == {}


@pytest.mark.parametrize(
    "field",
    [
        {"site": "south"},
        {"address": "198.18.0.22"},
        {"port": 2222},
        {"user": "admin"},
        {"identity_file": "/k"},
        {"ssh_args": "-4"},
    ],
)
def test_what_a_host_is_can_change(grid, field):
    grid.provider()
    assert grid.provider(**field)["actions"] == ["update"]
    assert grid.provider(**field)["actions"] == []


def test_a_host_that_tells_less_keeps_what_was_known(grid):
    grid.provider()
    assert grid.register([{"name": "provider1"}])["providers"][0]["changed"] is False


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (None, "invalid_host"),
        ({}, "invalid_host"),
        ({"name": "-oProxyCommand=id", "site": "north"}, "invalid_host"),
        ({"name": "p", "site": "no/rth"}, "invalid_site"),
        ({"name": "p"}, "no_site"),
        ({"name": "p", "site": "north", "kind": "machine"}, "invalid_kind"),
        ({"name": "p", "site": "north", "address": "-oProxyCommand=id"}, "invalid_address"),
        ({"name": "p", "site": "north", "address": "a b"}, "invalid_address"),
        ({"name": "p", "site": "north", "port": "22; id"}, "invalid_port"),
        ({"name": "p", "site": "north", "port": 70000}, "invalid_port"),
        ({"name": "p", "site": "north", "user": "-l"}, "invalid_login"),
        ({"name": "p", "site": "north", "identity_file": "/k\nProxyCommand id"}, "invalid_path"),
        ({"name": "p", "site": "north", "ssh_args": "-o 'Unclosed"}, "invalid_arguments"),
        ({"name": "p", "site": "north", "ssh_args": "-4\nid"}, "invalid_arguments"),
    ],
)
def test_a_bad_host_fails_alone(grid, entry, expected):
    bad, good = grid.register([entry, {"name": "provider2", "site": "south"}])["providers"]
    assert code(bad) == expected and good["actions"] == ["register"]


def test_a_future_that_was_seen_exists(grid, seen):
    uuid = grid.order(WEB1)[0]["uuid"]
    grid.provider()
    assert register_machine(grid, seen("web1", uuid))["actions"] == ["exist"]
    row = grid.machine("web1")
    assert (row["future"], row["state"], row["provider"], row["site"], row["address"]) == (
        False,
        "running",
        "provider1",
        "north",
        "198.18.1.5",
    )
    assert grid.order(WEB1)[0]["state"] == "running" and grid.order(WEB1)[0]["changed"] is False
    register_machine(grid, seen("web1", uuid, state="stopped", tags=["late"]))
    with grid.store.reading() as connection:
        history = query.events(connection, uuid)
    assert [event["what"] for event in history] == ["ordered", "exist", "update"]
    assert history[-1]["details"] == {"state": "stopped", "provider": "provider1", "fields": ["state", "tags"]}


def test_the_same_again_changes_nothing(grid, seen):
    uuid = grid.running()
    again = register_machine(grid, seen("web1", uuid))
    assert again == {"name": "web1", "changed": False, "uuid": uuid, "actions": []}
    assert grid.diffs == []


@pytest.mark.parametrize(
    "field",
    [
        {"state": "stopped"},
        {"addresses": ["198.18.1.6"]},
        {"memory": 2**30},
        {"display": {"type": "vnc", "host": "127.0.0.1", "port": 5901}},
        {"generation": 2},
        {"restart_required": True},
        {"state": "absent"},
    ],
)
def test_a_machine_that_changed_is_updated(grid, seen, field):
    uuid = grid.running()
    assert register_machine(grid, seen("web1", uuid, **field))["actions"] == ["update"]
    assert register_machine(grid, seen("web1", uuid, **field))["actions"] == []


def test_who_told_the_address_is_kept_and_is_no_change(grid, seen):
    uuid = grid.running()
    assert register_machine(grid, seen("web1", uuid, address_source="agent"))["actions"] == []
    assert grid.machine("web1")["facts"]["address_source"] == "agent"


def test_the_last_known_addresses_stay_while_none_are_seen(grid, seen):
    uuid = grid.running()
    register_machine(grid, seen("web1", uuid, state="stopped", addresses=[], address_source=None))
    assert grid.machine("web1")["address"] == "198.18.1.5"


def test_an_address_that_was_only_ordered_does_not_stay(grid, seen):
    """Earlier releases kept such addresses as the machine's."""
    uuid = grid.running()
    with grid.store.writing() as connection:
        connection.exec_driver_sql(
            "UPDATE host SET facts = json_set(facts, '$.address_source', 'ordered') WHERE name = 'web1'"
        )
    register_machine(grid, seen("web1", uuid, addresses=[], address_source=None))
    assert grid.machine("web1")["address"] is None


def test_what_is_not_told_stays(grid):
    uuid = grid.running()
    told = {"name": "web1", "uuid": uuid, "provider": "provider1", "state": "stopped"}
    assert register_machine(grid, told)["actions"] == ["update"]
    row = grid.machine("web1")
    assert row["memory"] == 512 * 2**20 and row["facts"]["mac"] == "52:54:00:00:00:01"


def test_check_mode_says_the_same_and_writes_nothing(grid, seen, facts):
    uuid = grid.order(WEB1)[0]["uuid"]
    given = {"providers": [{"name": "provider1", "site": "north", "facts": facts}], "machines": [seen("web1", uuid)]}
    checked, diffs = grid.register(**given, check=True), grid.diffs
    assert grid.machine("web1")["future"] and grid.counts()["host"] == 1
    assert checked == grid.register(**given) and diffs == grid.diffs


def test_a_machine_that_moved(grid, seen):
    uuid = grid.running()
    grid.provider("provider2", "south")
    assert register_machine(grid, seen("web1", uuid, "provider2", generation=2))["actions"] == ["move"]
    assert (grid.machine("web1")["provider"], grid.machine("web1")["site"]) == ("provider2", "south")


def test_an_older_copy_elsewhere_is_not_believed(grid, seen):
    uuid = grid.running(generation=3)
    grid.provider("provider2", "south")
    assert code(register_machine(grid, seen("web1", uuid, "provider2", generation=2))) == "stale_copy"
    assert grid.machine("web1")["provider"] == "provider1"


def test_of_several_copies_the_newest_running_one_counts(grid, seen):
    uuid = grid.running()
    grid.provider("provider2", "south")
    copies = [seen("web1", uuid, "provider1", state="stopped"), seen("web1", uuid, "provider2")]
    first, second = grid.register(machines=copies)["machines"]
    assert code(first) == "several_copies" and second["actions"] == ["move"]


def test_an_absent_machine_elsewhere_means_nothing(grid, seen):
    uuid = grid.running()
    grid.provider("provider2", "south")
    assert register_machine(grid, seen("web1", uuid, "provider2", state="absent"))["changed"] is False
    assert grid.machine("web1")["state"] == "running"


def test_absent_futures_stay_futures(grid, seen):
    uuid = grid.order(WEB1)[0]["uuid"]
    grid.provider()
    assert register_machine(grid, seen("web1", uuid, state="absent"))["changed"] is False
    assert grid.machine("web1")["future"]


def test_a_lost_store_is_rebuilt(grid, seen):
    grid.provider()
    users = [{"name": "alice", "ssh_authorized_keys": ["ssh-ed25519 " + "A" * 68], "sudo": True, "shell": "/bin/bash"}]
    told = seen("web1", OTHER, tags=["web"], users=users, packages=["vim"])
    assert register_machine(grid, told)["actions"] == ["rebuild"]
    assert register_machine(grid, told)["actions"] == []
    row = grid.machine("web1")
    assert (row["uuid"], row["owner"], row["future"], row["spec"]["image"], row["spec"]["tags"]) == (
        OTHER,
        "alice",
        False,
        "tiny@1",
        ["web"],
    )
    again = grid.order({**WEB1, "tags": ["web"], "users": users, "packages": ["vim"], "disk": "1 GiB"})[0]
    assert not again["changed"] and again["uuid"] == OTHER
    assert not grid.order({**WEB1, "tags": ["web"], "users": users, "packages": ["vim"]})[0]["changed"]


def test_a_rebuilt_machine_has_its_wishes_and_its_reservation(grid, seen):
    grid.provider()
    wishes = {
        "site": "north",
        "affinity": ["db1"],
        "performance": {"reservation": {"period": 10000, "slice": 2000}},
        "owner": "mallory",
    }
    assert register_machine(grid, seen("web1", OTHER, wishes=wishes))["actions"] == ["rebuild"]
    row = grid.machine("web1")
    assert (row["spec"]["site"], row["spec"]["affinity"], row["owner"]) == ("north", ["db1"], "alice")
    with grid.store.reading() as connection:
        [reserved] = connection.execute(schema.RESERVATION.select()).mappings()
    assert (reserved["machine"], reserved["cpu_period_us"], reserved["cpu_slice_us"]) == (
        OTHER,
        10000,
        2000 * row["spec"]["vcpus"],
    )
    assert (reserved["memory"], reserved["end"]) == (row["spec"]["memory"], FOREVER)


@pytest.mark.parametrize("wishes", ["text", ["site"], {"features": "x" * 99, "site": "no/site"}])
def test_what_a_provider_says_of_wishes_is_checked(grid, seen, wishes):
    grid.provider()
    told = register_machine(grid, seen("web1", OTHER, wishes=wishes))
    assert code(told) in (None, "invalid_order", "invalid_site", "invalid_feature")
    assert code(told) or "site" not in grid.machine("web1")["spec"]


def test_a_rebuilt_machine_does_not_take_a_name(grid, seen):
    grid.order(WEB1)
    grid.provider()
    assert code(register_machine(grid, seen("web1", OTHER))) == "name_taken"
    assert code(register_machine(grid, seen("provider1", OTHER))) == "name_taken"
    twins = grid.register(machines=[seen("web2", OTHER), seen("web2", str(uuids.uuid4()))])["machines"]
    assert [code(twin) for twin in twins] == [None, "name_taken"]


@pytest.mark.parametrize("name", sorted(RESERVED_NAMES))
def test_a_provider_can_not_bring_in_a_reserved_name(grid, seen, name):
    grid.provider()
    assert code(register_machine(grid, seen(name, OTHER))) == "reserved_name"


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ({"name": "../x"}, "invalid_name"),
        ({"name": "{{ x }}"}, "invalid_name"),
        ({"name": None}, "invalid_name"),
        ({"uuid": "x"}, "invalid_uuid"),
        ({"uuid": None}, "invalid_uuid"),
        ({"state": "exploded"}, "invalid_state"),
        ({"provider": None}, "invalid_host"),
        ({"provider": "nosuch"}, "unknown_provider"),
        ({"owner": "{{ x }}"}, "invalid_order"),
        ({"memory": -1}, None),
    ],
)
def test_a_bad_machine_fails_alone(grid, seen, field, expected):
    grid.provider()
    bad, good = grid.register(machines=[{**seen("web1", OTHER), **field}, seen("web2", str(uuids.uuid4()))])["machines"]
    assert code(bad) == expected and good["actions"] == ["rebuild"]


def test_foreign_machines_are_passed_over(grid):
    grid.provider()
    assert (
        grid.register(
            machines=[{"name": "theirs", "uuid": OTHER, "state": "running", "foreign": True, "provider": "provider1"}]
        )["machines"]
        == []
    )


def test_retiring_leaves_no_row(grid):
    grid.provider()
    before = grid.counts()
    uuid = grid.running()
    result = grid.register(gone=[uuid, OTHER, uuid])["gone"]
    assert [item["changed"] for item in result] == [True, False, True]
    after = grid.counts()
    image = {
        "object": 2,
        "image": 1,
        "image_layer": 1,
        "network": 1,
    }  # what it was made from and the network stay known
    assert {table: after[table] - before[table] for table in before if before[table] != after[table]} == image
    assert grid.register(gone=[uuid])["gone"][0]["changed"] is False


def test_only_machines_can_be_forgotten(grid):
    grid.provider()
    with grid.store.reading() as connection:
        provider = query.hosts(connection)[0]["uuid"]
    assert grid.register(gone=[provider])["gone"][0]["changed"] is False
    assert grid.counts()["host"] == 1


@pytest.mark.parametrize(("source", "address"), [("agent", None), ("neighbour", None), ("lease", "198.18.0.21")])
def test_a_guest_does_not_pass_for_a_host(grid, seen, source, address):
    uuid = grid.running()
    assert grid.provider()["actions"] == []
    told = seen("web1", uuid, addresses=["198.18.0.21"], address_source=source)
    with grid.store.writing() as connection:
        connection.exec_driver_sql("UPDATE host SET facts = '{}', address = NULL WHERE name = 'web1'")
    register_machine(grid, told)
    assert grid.machine("web1")["address"] == address


def test_a_machine_that_nobody_ordered_does_not_take_a_hosts_name(grid, seen):
    grid.provider()
    told = seen("db1", str(uuids.uuid4()))
    assert code(grid.register(machines=[told], inventory=["db1"])["machines"][0]) == "name_taken"
    assert grid.register(machines=[told], inventory=["web1"])["machines"][0]["actions"] == ["rebuild"]
    # Its name is its own from now on.
    assert grid.register(machines=[told], inventory=["db1"])["machines"][0]["actions"] == []
