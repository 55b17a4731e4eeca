# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A complete look at providers: what vanished and what is foreign is marked, what was measured is kept; nothing is
deleted."""

from __future__ import annotations

import uuid as uuids

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._information.inventory import views
from ansible_collections.virtuoso.grid.plugins.module_utils._information.registration import samples
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store import query, schema

OTHER = str(uuids.uuid4())


def theirs(name="theirs", uuid=OTHER, provider="provider1", state="running"):
    """A domain that is not the grid's, as machine_info returns it."""
    return {"name": name, "uuid": uuid, "state": state, "foreign": True, "provider": provider}


def foreign(grid):
    with grid.store.reading() as connection:
        return query.foreign_domains(connection)


def events(grid, uuid):
    with grid.store.reading() as connection:
        return [event["what"] for event in query.events(connection, uuid)]


def test_a_machine_that_its_provider_has_no_more_has_vanished(grid, seen):
    uuid = grid.running()
    before = grid.counts()
    check = grid.register(complete=["provider1"], check=True)["vanished"]
    result = grid.register(complete=["provider1"])["vanished"]
    assert (
        check
        == result
        == [{"name": "web1", "uuid": uuid, "provider": "provider1", "changed": True, "actions": ["vanish"]}]
    )
    assert "vanished" in grid.diffs[0]["after"]
    row = grid.machine("web1")
    assert (row["state"], views.state_of(row), row["provider"]) == ("vanished", "vanished", "provider1") and row[
        "missing"
    ]
    assert grid.register(complete=["provider1"])["vanished"] == [] and grid.diffs == []
    assert {table: count for table, count in grid.counts().items() if count != before[table]} == {
        "event": before["event"] + 1
    }
    assert events(grid, uuid)[-1] == "vanished"


def test_it_is_back_when_it_is_seen_again(grid, seen):
    uuid = grid.running()
    grid.register(complete=["provider1"])
    result = grid.register(machines=[seen("web1", uuid)], complete=["provider1"])
    assert result["machines"][0]["actions"] == ["return"] and result["vanished"] == []
    row = grid.machine("web1")
    assert (row["state"], row["missing"]) == ("running", None)


def test_one_that_moved_has_not_vanished(grid, seen):
    uuid = grid.running()
    grid.provider("provider2")
    result = grid.register(
        machines=[seen("web1", uuid, "provider2", generation=2)], complete=["provider1", "provider2"]
    )
    assert result["vanished"] == [] and grid.machine("web1")["provider"] == "provider2"


def test_nobody_vanishes_from_a_provider_that_was_not_looked_at(grid):
    grid.running()
    assert grid.register(complete=["provider2"])["vanished"] == [] and grid.register()["vanished"] == []
    assert grid.machine("web1")["state"] == "running"


def test_one_that_could_not_be_registered_has_not_vanished(grid, seen):
    uuid = grid.running()
    result = grid.register(machines=[{**seen("web1", uuid.upper()), "state": "odd"}], complete=["provider1"])
    assert result["machines"][0]["failed"] and result["vanished"] == []


def test_futures_do_not_vanish(grid):
    grid.order({"name": "web1", "image": "tiny"})
    grid.provider()
    grid.hold("web1", "provider1")
    assert grid.register(complete=["provider1"])["vanished"] == []


def test_an_absent_machine_is_missing_and_says_so_once(grid, seen):
    uuid = grid.running()
    grid.register(machines=[seen("web1", uuid, state="absent")])
    row = grid.machine("web1")
    assert row["state"] == "absent" and row["missing"]
    assert grid.register(complete=["provider1"])["vanished"] == []


def test_foreign_domains_are_noted_and_marked_when_they_are_gone(grid):
    grid.provider()
    told = grid.register(machines=[theirs()], complete=["provider1"])["foreign"]
    assert told == [
        {
            "provider": "provider1",
            "uuid": OTHER,
            "name": "theirs",
            "state": "running",
            "changed": True,
            "actions": ["appear"],
        }
    ]
    assert grid.register(machines=[theirs()], complete=["provider1"])["foreign"][0]["actions"] == []
    assert grid.register(machines=[theirs(state="stopped")], complete=["provider1"])["foreign"][0]["actions"] == [
        "update"
    ]
    assert foreign(grid)["provider1", OTHER]["state"] == "stopped" and grid.machine("theirs") is None
    assert (
        grid.register(complete=["provider1"])["foreign"][0]["actions"] == ["vanish"]
        and foreign(grid)["provider1", OTHER]["missing"]
    )
    assert grid.register(complete=["provider1"])["foreign"] == []
    assert grid.register(machines=[theirs()], complete=["provider1"])["foreign"][0]["actions"] == ["appear"]
    assert foreign(grid)["provider1", OTHER]["missing"] is None


def test_a_foreign_domain_that_became_a_machine_is_foreign_no_more(grid, seen):
    grid.provider()
    grid.register(machines=[theirs()], complete=["provider1"])
    result = grid.register(machines=[seen("web9", OTHER)], complete=["provider1"])
    assert result["foreign"][0]["actions"] == ["own"] and foreign(grid) == {} and grid.machine("web9")


@pytest.mark.parametrize(
    "entry", [theirs(uuid="x"), theirs(name=7), theirs(provider=None), {"foreign": True}, "text", None]
)
def test_what_makes_no_sense_is_passed_over(grid, entry):
    grid.provider()
    assert grid.register(machines=[entry], complete=["provider1"])["foreign"] == [] and foreign(grid) == {}


def test_a_hostile_name_is_made_printable(grid):
    grid.provider()
    name = grid.register(machines=[theirs(name="a\x1b[31m\n" + "b" * 400)], complete=["provider1"])["foreign"][0][
        "name"
    ]
    assert name.isprintable() and name.startswith("a?[31m?b") and len(name) == 253


def test_samples_are_kept_beside_each_other(grid):
    uuid = grid.running()
    given = [
        {"object": "web1", "metric": "load", "value": 0.5, "time": "2026-11-01T00:00:00Z"},
        {"object": uuid, "metric": "load", "value": "0.7"},
        {"object": "north", "peer": "provider1", "metric": "latency", "value": 0.002},
    ]
    assert not any(result.get("failed") or result["changed"] for result in grid.register(samples=given)["samples"])
    with grid.store.reading() as connection:
        rows = connection.execute(schema.SAMPLE.select().order_by(schema.SAMPLE.c.id)).all()
    assert [(row.object == uuid, row.metric, row.value, row.peer is None) for row in rows] == [
        (True, "load", 0.5, True),
        (True, "load", 0.7, True),
        (False, "latency", 0.002, False),
    ]


@pytest.mark.parametrize(
    "sample",
    [
        "x",
        {},
        {"object": "nobody", "metric": "load", "value": 1},
        {"object": "web1", "peer": "nobody", "metric": "load", "value": 1},
        {"object": "web1", "metric": "a b", "value": 1},
        {"object": "web1", "metric": "load", "value": "much"},
        {"object": "web1", "metric": "load", "value": float("nan")},
        {"object": "web1", "metric": "load", "value": 1, "time": "now"},
        {"object": "web1", "metric": "load"},
    ],
)
def test_a_bad_sample_fails_alone(grid, sample):
    grid.running()
    bad, good = grid.register(samples=[sample, {"object": "web1", "metric": "load", "value": 1}])["samples"]
    assert bad["failure"]["code"] == "invalid_sample" and not good.get("failed")


def test_a_site_comes_before_a_host_of_its_name(grid):
    grid.provider("north", site="north")
    with grid.store.reading() as connection:
        assert samples.objects_by_name(connection)["north"] == query.sites(connection)["north"]


def test_columns_that_queries_compare_are_filled_from_facts(grid, facts):
    told = {
        **facts,
        "disk_free": 5,
        "virtualization": "kvm",
        "libvirt_version": "9.0.0",
        "qemu_version": "x",
        "cpus_allocated": "3",
        "load": True,
    }
    grid.provider(facts=told, price="0.5")
    with grid.store.reading() as connection:
        row = query.hosts(connection)[0]
    names = (
        "architecture",
        "memory_free",
        "disk_free",
        "virtualization",
        "libvirt_version",
        "qemu_version",
        "cpus_allocated",
        "price",
    )
    assert [row[name] for name in names] == ["x86_64", facts["memory_free"], 5, "kvm", "9.0.0", None, None, 0.5]
    assert grid.provider(price="dear")["failure"]["code"] == "invalid_price"


def test_the_network_of_a_machine_follows_what_is_told(grid, seen):
    uuid = grid.order({"name": "web1", "image": "tiny", "network": "lab"})[0]["uuid"]

    def plugs():
        with grid.store.reading() as connection:
            return query.plugs(connection, [uuid])[uuid]

    assert plugs() == ("lab", None)
    grid.order({"name": "web1", "image": "tiny", "network": "office"})
    assert plugs() == ("office", None)
    grid.provider()
    grid.register(machines=[seen("web1", uuid, network="lab", mac="52:54:00:00:00:09")])
    assert plugs() == ("lab", "52:54:00:00:00:09")


def test_latencies_that_a_provider_measured_are_samples_between_sites(grid, facts):
    grid.provider("provider2", site="south")
    told = [
        {"site": "south", "seconds": 0.01},
        {"site": "nowhere", "seconds": 1},
        {"site": "north", "seconds": 1},
        {"site": "south", "seconds": -1},
        "x",
    ]
    grid.provider(facts={**facts, "latencies": told})
    with grid.store.reading() as connection:
        sites = query.sites(connection)
        rows = connection.execute(schema.SAMPLE.select()).all()
    assert [(row.object, row.peer, row.metric, row.value) for row in rows] == [
        (sites["north"], sites["south"], "latency", 0.01)
    ]
    assert grid.provider(facts={**facts, "latencies": []})["changed"] is False
