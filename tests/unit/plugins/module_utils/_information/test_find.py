# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Answers from a synthetic grid, judged by going through all of its rows in Python; on both databases."""

from __future__ import annotations

import itertools
import threading

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._information.find import answer as finding
from ansible_collections.virtuoso.grid.plugins.module_utils._information.find import search
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store import schema, writing
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store.database import Store
from synthetic import GIB, MIB, Grid

FOUR = {"of": "machine", "same": ["network"], "sum": ["memory >= 512 MiB", "memory <= 1 GiB"]}


class World:
    """A grid in a store, and what its rows say."""

    def __init__(self, location):
        self.grid = Grid(150, providers=8, sites=4, networks=12, futures=20, seed=7)
        self.store = self.grid.write(location)
        futures = {row["uuid"] for row in self.grid.futures}
        self.machines = [row for row in self.grid.machines if row["uuid"] not in futures]
        self.futures = [row for row in self.grid.machines if row["uuid"] in futures]
        self.site = {row["uuid"]: row["name"] for row in self.grid.sites}
        self.provider = {row["uuid"]: row for row in self.grid.providers}

    def ask(self, **options):
        return finding.find(self.store, options)

    def sets(self, size, low=512 * MIB, high=GIB):
        """All sets of machines on one network whose memory lies between the bounds."""
        by_network = {}
        for row in self.machines:
            by_network.setdefault(row["_network"]["uuid"], []).append(row)
        return {
            frozenset(row["uuid"] for row in chosen)
            for rows in by_network.values()
            for chosen in itertools.combinations(rows, size)
            if low <= sum(row["memory"] for row in chosen) <= high
        }


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def world(request, tmp_path_factory):
    if request.param == "sqlite":
        return World(str(tmp_path_factory.mktemp("find") / "grid.db"))
    return World(request.getfixturevalue("postgresql").database())


def uuids(result):
    return [found["uuid"] for found in result["found"]]


def members(result):
    return [frozenset(member["uuid"] for member in found["members"]) for found in result["found"]]


def test_physical_machines_that_can_instantiate_a_machine_of_1_gib(world):
    held = {}
    for row in world.futures:
        held[row["_provider"]] = held.get(row["_provider"], 0) + row["memory"]
    left = {uuid: min(row["memory_free"], row["memory"]) - held.get(uuid, 0) for uuid, row in world.provider.items()}
    bound = sorted(left.values())[3]  # so that some have and some haven't
    result = world.ask(where=[f"memory_available >= {bound}"], include=["physical"], order=["-memory_available"])
    expected = sorted((uuid for uuid in left if left[uuid] >= bound), key=left.get, reverse=True)
    assert uuids(result) == expected and result["answer"] == "complete" and result["more"] is False
    assert [found["memory_available"] for found in result["found"]] == [left[uuid] for uuid in expected]
    assert {found["kind"] for found in result["found"]} == {"provider"}
    assert set(uuids(world.ask(of="provider", where=["memory_available >= 1 GiB"]))) == {
        uuid for uuid in left if left[uuid] >= GIB
    }


@pytest.mark.parametrize("size", [2, 3, 4])
def test_sets_on_the_same_network_exactly(world, size):
    result = world.ask(**FOUR, size=size, method="exact", limit=100_000)
    found = members(result)
    assert len(found) == len(set(found)) and set(found) == world.sets(size)
    assert (result["answer"], result["more"]) == ("complete", False) and result["cost"]["method"] == "exact"
    some = result["found"][0]
    assert len({member["network"] for member in some["members"]}) == 1
    assert some["sum"] == {"memory": sum(member["memory"] for member in some["members"])}


@pytest.mark.parametrize("size", [1, 2, 4, 6])
def test_sets_on_the_same_network_sampled(world, size):
    result = world.ask(**FOUR, size=size, method="sample", limit=30, seed=3, within="30 s")
    found = [frozenset([uuid]) for uuid in uuids(result)] if size == 1 else members(result)
    valid = world.sets(size)
    assert result["answer"] == "sample" and len(set(found)) == len(found) == min(30, len(valid)) and set(found) <= valid


def test_a_sample_is_repeatable_and_its_seed_is_told(world):
    first = world.ask(**FOUR, size=4, method="sample", limit=10)
    again = world.ask(**FOUR, size=4, method="sample", limit=10, seed=first["seed"])
    other = world.ask(**FOUR, size=4, method="sample", limit=10, seed=first["seed"] + 1)
    assert again["found"] == first["found"] and again["seed"] == first["seed"] and members(other) != members(first)


def test_a_small_question_is_answered_exactly_and_a_large_one_by_a_sample(world, monkeypatch):
    assert world.ask(**FOUR, size=2)["cost"]["method"] == "exact"
    monkeypatch.setattr(finding, "EXACT_COMBINATIONS", 100)
    result = world.ask(**FOUR, size=2)
    assert (result["answer"], result["cost"]["method"]) == ("sample", "sample") and result["cost"]["combinations"] > 100


def test_a_large_partition_is_sampled_from_a_window(world, monkeypatch):
    monkeypatch.setattr(finding, "WINDOW", 20)
    result = world.ask(of="machine", size=3, sum=["memory <= 2 GiB"], method="sample", limit=5, seed=1)
    memory = {row["uuid"]: row["memory"] for row in world.machines}
    assert len(result["found"]) == 5 and result["cost"]["rows"] < 60
    assert all(len(found) == 3 and sum(memory[uuid] for uuid in found) <= 2 * GIB for found in members(result))


def test_the_order_of_sets(world):
    result = world.ask(**FOUR, size=3, method="exact", order=["-sum(memory)", "sum(cpus)"], limit=20)
    rows = {row["uuid"]: row for row in world.machines}

    def key(found):
        return (-sum(rows[uuid]["memory"] for uuid in found), sum(rows[uuid]["cpus"] for uuid in found))

    every = sorted(map(key, world.sets(3)))
    assert [key(found) for found in members(result)] == every[:20] and result["more"] is True
    sampled = [
        key(found)
        for found in members(world.ask(**FOUR, size=3, method="sample", order=["-sum(memory)"], limit=5, seed=1))
    ]
    assert [first for first, dummy in sampled] == sorted(first for first, dummy in sampled)


def test_all_different(world):
    result = world.ask(
        of="machine", size=3, same=["site"], different=["provider", "owner"], method="sample", limit=20, seed=5
    )
    rows = {row["uuid"]: row for row in world.machines}
    assert len(result["found"]) == 20
    for found in members(result):
        chosen = [rows[uuid] for uuid in found]
        assert len({row["site"] for row in chosen}) == 1
        assert len({row["_provider"] for row in chosen}) == 3 and len({row["_owner"] for row in chosen}) == 3
    exact = world.ask(of="provider", size=2, different=["site"], method="exact", limit=1000)
    pairs = {
        frozenset(pair)
        for pair in itertools.combinations(world.provider, 2)
        if len({world.provider[uuid]["site"] for uuid in pair}) == 2
    }
    assert set(members(exact)) == pairs


@pytest.mark.parametrize("method", ["exact", "sample"])
def test_joins_of_members_of_several_kinds(world, method):
    options = {
        "members": {
            "guest": {"of": "machine", "where": ["memory >= 1 GiB"]},
            "here": {"of": "provider"},
            "there": {"of": "provider"},
        },
        "join": ["guest.provider == here.name", "guest.memory <= there.memory_free", "here.site != there.site"],
    }
    expected = {
        (guest["uuid"], guest["_provider"], there["uuid"])
        for guest in world.machines
        for there in world.grid.providers
        if guest["memory"] >= GIB
        and guest["memory"] <= there["memory_free"]
        and there["site"] != world.provider[guest["_provider"]]["site"]
    }
    result = world.ask(**options, method=method, limit=1000 if method == "exact" else 15, seed=2)
    found = [tuple(member["uuid"] for member in answer["members"]) for answer in result["found"]]
    assert [member["member"] for member in result["found"][0]["members"]] == ["guest", "here", "there"]
    assert len(found) == len(set(found)) and (
        set(found) == expected if method == "exact" else set(found) < expected and len(found) == 15
    )


def test_what_exists_and_what_is_shown_of_its_nature(world):
    everything = world.ask(limit=1000)
    assert set(uuids(everything)) == {row["uuid"] for row in (*world.machines, *world.grid.providers)}
    assert set(everything["found"][0]) == {"name", "uuid", "site"}
    cases = {("physical",): world.grid.providers, ("virtual",): world.machines, ("future",): world.futures}
    cases["physical", "future"] = [*world.grid.providers, *world.futures]
    cases["virtual", "future"] = world.grid.machines
    for include, rows in cases.items():
        assert set(uuids(world.ask(include=list(include), limit=1000))) == {row["uuid"] for row in rows}, include
    assert set(uuids(world.ask(of="machine", include=["future"]))) == {row["uuid"] for row in world.futures}


@pytest.mark.parametrize(
    ("where", "holds"),
    [
        (["site == site01"], lambda world, row: world.site[row["site"]] == "site01"),
        (["site != site01"], lambda world, row: world.site[row["site"]] != "site01"),
        (
            ["site in site01, site02", "cpus > 1"],
            lambda world, row: world.site[row["site"]] in ("site01", "site02") and row["cpus"] > 1,
        ),
        (["name like MACHINE00001%"], lambda world, row: row["name"].startswith("machine00001")),
        (["name like MACHINE%5", "cpus == 4"], lambda world, row: row["name"].endswith("5") and row["cpus"] == 4),
        (["network == net00003"], lambda world, row: row["_network"]["name"] == "net00003"),
        (
            ["network not in net00003, net00004"],
            lambda world, row: row["_network"]["name"] not in ("net00003", "net00004"),
        ),
        (["provider == provider00002"], lambda world, row: world.provider[row["_provider"]]["name"] == "provider00002"),
        (["owner == owner07"], lambda world, row: row["_owner"] == "owner07"),
        (["image == debian-12", "memory <= 256 MiB"], lambda world, row: row["memory"] <= 256 * MIB),
        (["image == tiny"], lambda world, row: False),
        (["network is unknown"], lambda world, row: False),
        (["network is known", "image is known", "owner is known", "site is known"], lambda world, row: True),
        (["missing is known"], lambda world, row: False),
        (["state == running"], lambda world, row: row["state"] == "running"),
        ([{"column": "name", "value": "x' OR '1'='1"}], lambda world, row: False),
    ],
)
def test_conditions(world, where, holds):
    result = world.ask(of="machine", where=where, limit=1000)
    assert set(uuids(result)) == {row["uuid"] for row in world.machines if holds(world, row)}
    assert (
        uuids(world.ask(of="machine", where=where, limit=1000, method="sample", within="20 s")) or not result["found"]
    )


def test_the_first_ones_and_whether_there_are_more(world):
    result = world.ask(of="machine", order=["-memory", "name"], limit=5, columns=["memory", "owner"])
    expected = sorted(world.machines, key=lambda row: (-row["memory"], row["name"]))[:5]
    assert result["found"] == [
        {"uuid": row["uuid"], "memory": row["memory"], "owner": row["_owner"]} for row in expected
    ]
    assert result["more"] is True


def test_other_kinds(world):
    networks = world.ask(of="network", order=["-hosts"])["found"]
    assert (
        len(networks) == 12
        and world.ask(of="network", where=["hosts >= 1"], order=["hosts"], columns=["hosts"])["found"]
    )
    image = world.ask(of="image", where=["size >= 100 MiB"], columns=["name", "size"])["found"]
    assert [(row["name"], row["size"]) for row in image] == [("debian-12", 400 * MIB)]
    assert {row["name"] for row in world.ask(of="site")["found"]} == {"site00", "site01", "site02", "site03"}
    assert world.ask(of="link")["found"] == world.ask(of="device")["found"] == world.ask(of="home")["found"] == []
    assert (
        world.ask(of="link", where=["site_a == x"])["found"]
        == world.ask(of="device", where=["home == x"])["found"]
        == []
    )


def test_near_a_site_by_the_newest_measurement(world):
    sites = {row["name"]: row["uuid"] for row in world.grid.sites}
    measured = [
        ("site00", "site01", 0.010, "10"),
        ("site02", "site00", 0.030, "10"),
        ("site00", "site02", 0.015, "11"),
        ("site01", "site03", 0.001, "10"),
    ]
    with world.store.writing() as connection:
        connection.execute(schema.SAMPLE.delete())
        rows = [
            {
                "object": sites[one],
                "peer": sites[other],
                "metric": "latency",
                "value": value,
                "time": f"2026-11-{day}T00:00:00Z",
            }
            for one, other, value, day in measured
        ]
        writing.insert(connection, schema.SAMPLE, rows)

    def near(**scope):
        return {row["site"] for row in world.ask(of="machine", scope=scope, limit=1000)["found"]}

    assert near(near="site00") == {"site00"}
    assert near(near="site00", latency="12 ms") == {"site00", "site01"}
    assert near(near="site00", latency="20 ms") == {"site00", "site01", "site02"}
    host = world.machines[0]
    assert near(near=host["name"]) == {world.site[host["site"]]}
    assert {row["name"] for row in world.ask(of="site", scope={"near": "site03", "latency": "1 s"})["found"]} == {
        "site03",
        "site01",
    }
    with pytest.raises(GridError) as caught:
        near(near="nowhere")
    assert caught.value.code == "unknown_site"
    sets = world.ask(**FOUR, size=2, scope={"near": "site00", "latency": "12 ms"}, limit=1000, method="sample")["found"]
    assert sets and {member["site"] for found in sets for member in found["members"]} <= {"site00", "site01"}


class Clock:
    """A clock that goes on by a step at each look."""

    def __init__(self, step):
        self.now, self.step = 0.0, step

    def __call__(self):
        self.now += self.step
        return self.now


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"method": "exact"}, "cut"),
        ({"method": "exact", "order": ["sum(cpus)"]}, "cut"),
        ({"method": "sample"}, "sample"),
    ],
)
def test_at_the_deadline_what_was_found_is_returned_and_valid(world, monkeypatch, options, kind):
    monkeypatch.setattr(finding, "Deadline", lambda seconds: search.Deadline(seconds, Clock(0.05)))
    result = world.ask(
        of="machine", size=3, same=["site"], sum=["memory >= 1 GiB"], limit=100_000, within="1 s", **options
    )
    found = members(result)
    assert (result["answer"], result["more"], result["cost"]["expired"]) == (kind, None, True) and len(found) == len(
        set(found)
    ) > 0
    rows = {row["uuid"]: row for row in world.machines}
    for chosen in ([rows[uuid] for uuid in answer] for answer in found):
        assert (
            len({row["site"] for row in chosen}) == 1
            and sum(row["memory"] for row in chosen) >= GIB
            and len(chosen) == 3
        )


def test_a_deadline_before_anything_could_be_read(world, monkeypatch):
    monkeypatch.setattr(finding, "Deadline", lambda seconds: search.Deadline(seconds, Clock(2.0)))
    for options in (
        {**FOUR, "size": 4},
        {"of": "machine"},
        {"members": {"a": {}, "b": {}}},
        {"scope": {"near": "site00"}},
    ):
        result = world.ask(**options, within="1 s")
        assert (result["found"], result["answer"], result["more"]) == ([], "cut", None)


def test_without_time_even_to_count_whatever_is_at_a_random_place_has_to_do(world, monkeypatch):
    monkeypatch.setattr(finding.Finder, "_survey", lambda self: None)
    result = world.ask(
        of="machine", size=3, where=["cpus >= 1"], same=["site"], sum=["memory >= 1 GiB"], limit=10, seed=1
    )
    rows = {row["uuid"]: row for row in world.machines}
    assert result["answer"] == "sample" and len(result["found"]) == 10
    assert all(
        sum(rows[uuid]["memory"] for uuid in found) >= GIB and len({rows[uuid]["site"] for uuid in found}) == 1
        for found in members(result)
    )


def test_the_database_ends_a_statement_at_the_deadline(world):
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    done = threading.Event()
    result = {}

    def ask():
        result.update(world.ask(sql=endless, within="200 ms"))
        done.set()

    threading.Thread(target=ask, daemon=True).start()
    assert done.wait(30) and (result["found"], result["answer"], result["more"]) == ([], "cut", None)


def test_an_impossible_network_is_no_sample_but_the_whole_answer(world):
    result = world.ask(of="machine", size=2, same=["network"], sum=["memory >= 1 TiB"], method="sample")
    assert (result["found"], result["answer"], result["more"]) == ([], "complete", False)


def test_sql_that_reads(world):
    result = world.ask(sql="SELECT owner, count(*) AS machines FROM orders GROUP BY owner ORDER BY owner;", limit=3)
    owners = sorted({row["_owner"] for row in world.grid.machines})
    assert [row["owner"] for row in result["found"]] == owners[:3] and (result["answer"], result["more"]) == (
        "complete",
        True,
    )
    assert world.ask(sql=" -- why\n WITH x AS (SELECT 1 AS one) SELECT one, '50%' AS half FROM x")["found"] == [
        {"one": 1, "half": "50%"}
    ]


@pytest.mark.parametrize(
    "text",
    [
        "DELETE FROM host",
        "INSERT INTO quota (owner) VALUES ('x')",
        "UPDATE host SET name = 'x'",
        "DROP TABLE event",
        "WITH gone AS (SELECT 1) DELETE FROM host",
        "SELECT 1; DELETE FROM host",
        "SELECT 1; COMMIT; DELETE FROM host",
        "/* SELECT */ DELETE FROM host",
        "PRAGMA user_version = 7",
        "ATTACH '/tmp/x.db' AS x",
        "COMMIT",
        "",
    ],
)
def test_sql_that_writes(world, text):
    before = snapshot(world.store)
    if not text:
        assert world.ask(sql=text)["found"]  # no statement: the other question
        return
    with pytest.raises(GridError) as caught:
        world.ask(sql=text)
    assert caught.value.code in ("sql_not_read_only", "invalid_sql")
    # a data-modifying WITH is no SELECT to PostgreSQL's cursors, and a syntax error to them
    assert caught.value.code == "sql_not_read_only" or (
        text.startswith(("WITH", "SELECT")) and world.store.location.url
    )
    assert snapshot(world.store) == before


@pytest.mark.parametrize(
    "text",
    ["SELECT nothing FROM host", "SELECT * FROM nowhere", "SELECT FROM WHERE", "SELECT 1 FROM host WHERE name = 'x"],
)
def test_sql_that_makes_no_sense(world, text):
    with pytest.raises(GridError) as caught:
        world.ask(sql=text)
    assert caught.value.code == "invalid_sql"


def test_sql_beside_conditions_is_refused(world):
    with pytest.raises(GridError) as caught:
        world.ask(sql="SELECT 1", where=["cpus == 1"])
    assert caught.value.code == "invalid_question"


def snapshot(store: Store):
    """How many rows each table has; on SQLite also that the file is sound."""
    with store.reading() as connection:
        if connection.dialect.name == "sqlite":
            assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
        return {table.name: len(connection.execute(table.select()).all()) for table in schema.METADATA.sorted_tables}


def test_only_an_admitted_reservation_takes_memory_from_what_is_available(tmp_path):
    world = World(str(tmp_path / "grid.db"))
    provider = world.ask(of="provider", where=["memory_available is known"], limit=1)["found"][0]["uuid"]

    def available():
        where = [f"uuid == {provider}", "memory_available is known"]
        return world.ask(of="provider", where=where, columns=["memory_available"])["found"][0]["memory_available"]

    before = available()
    for state, less in (("ended", 0), ("admitted", MIB)):
        row = {
            "uuid": writing.new_uuid(),
            "owner": "alice",
            "provider": provider,
            "memory": MIB,
            "begin": "2020-01-01T00:00:00Z",
        }
        row.update(end="2999-01-01T00:00:00Z", state=state, created="2020-01-01T00:00:00Z")
        with world.store.writing() as connection:
            writing.add_objects(connection, "reservation", [row])
            writing.insert(connection, schema.RESERVATION, [row])
        assert available() == before - less
