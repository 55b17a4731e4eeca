# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Moves that one task makes, and when it leaves them to others."""

from __future__ import annotations

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._migration import once
from ansible_collections.virtuoso.grid.plugins.module_utils._migration import plan as play
from ansible_collections.virtuoso.grid.plugins.plugin_utils._at_once import at_once, looked_at

HOSTS = {name: {"name": name, "site": name, "path": f"/{name}"} for name in ("p1", "p2", "p3")}
WANTED = {"mode": "auto", "dead": [], "speeds": {}, "reserve": 0, "per_host": 2, "per_link": 2, "networks": ["lan"]}
LOOKED = {"p1": {"machines": [{"uuid": "a"}]}, "p2": {"machines": []}}


def move(name="a", source="p1", target="p2", **more):
    base = {
        "name": name,
        "uuid": name,
        "source": source,
        "target": target,
        "mode": "live",
        "was": "running",
        "status": "planned",
        "postcopy": False,
    }
    return {
        **base,
        "size": 1,
        "link": [source, target],
        "missing": [],
        "network": "virtuoso",
        "extra_networks": [],
        **more,
    }


@pytest.fixture(name="planned")
def _planned(monkeypatch):
    answer = {
        "settle": [{}, {}],
        "moves": [move()],
        "rows": [{"name": "z", "uuid": "z", "changed": False}],
        "seen": [{"uuid": "a", "at": "p1"}, {"uuid": "z"}],
    }

    def plan(moves, looked, **options):
        answer["told"] = options
        return answer

    monkeypatch.setattr(play, "plan", plan)
    return answer


def arrive(journey):
    def arrived(machine):
        return {
            **machine,
            "status": "done",
            "row": {"uuid": machine["uuid"], "changed": True},
            "seen": {"uuid": machine["uuid"], "at": journey["target"]},
        }

    return [arrived(machine) for machine in journey["machines"]]


def test_what_was_decided_is_done_and_what_is_seen_later_counts(planned):
    done = at_once([], HOSTS, LOOKED, WANTED, arrive)
    assert done["over"] and done["changed"] and [row["uuid"] for row in done["rows"]] == ["z", "a"]
    assert done["seen"] == [{"uuid": "z"}, {"uuid": "a", "at": "p2"}]
    assert planned["told"] == {
        "mode": "auto",
        "dead": [],
        "speeds": {},
        "reserve": 0,
        "sites": {name: name for name in HOSTS},
    }


def test_where_nothing_moves_it_is_over_and_nothing_has_changed(planned):
    planned["moves"] = []
    done = at_once([], HOSTS, LOOKED, WANTED, lambda journey: pytest.fail("a journey"))
    assert (done["over"], done["changed"], done["rows"]) == (True, False, planned["rows"])


@pytest.mark.parametrize(
    "more",
    [
        {"missing": ["sha256:1"]},
        {"network": "lan"},
        {"extra_networks": ["other", "lan"]},
    ],
)
def test_a_machine_that_needs_more_is_left_to_the_steps(planned, more):
    planned["moves"].append(move("b", **more))
    assert at_once([], HOSTS, LOOKED, WANTED, lambda journey: pytest.fail("a journey")) == {
        "changed": False,
        "over": False,
    }


@pytest.mark.parametrize(
    "looked",
    [
        {**LOOKED, "p2": {"unreachable": True, "msg": "gone"}},
        {**LOOKED, "p2": {"failed": True, "msg": "no"}},
        {**LOOKED, "p1": {"machines": [{"uuid": "a", "waited": True}]}},
    ],
)
def test_who_was_not_seen_is_left_to_the_steps(planned, looked):
    assert at_once([], HOSTS, looked, WANTED, lambda journey: pytest.fail("a journey"))["over"] is False


def test_what_was_interrupted_comes_first(planned):
    planned["settle"][1]["p1"] = [{"uuid": "a"}]
    assert at_once([], HOSTS, LOOKED, WANTED, lambda journey: pytest.fail("a journey"))["over"] is False


def test_a_host_that_is_in_two_journeys_at_a_time_is_left_to_the_steps(planned):
    planned["moves"] = [move("a", "p1", "p3"), move("b", "p2", "p3")]
    assert at_once([], HOSTS, LOOKED, WANTED, lambda journey: pytest.fail("a journey"))["over"] is False
    # One after the other it is in one.
    assert at_once([], HOSTS, LOOKED, {**WANTED, "per_host": 1}, arrive)["over"] is True


def test_a_journey_that_breaks_is_told_of_each_of_its_machines(planned):
    def broken(journey):
        raise GridError("invalid_options", "no")

    done = at_once([], HOSTS, LOOKED, WANTED, broken)
    assert done["rows"][1]["failure"]["code"] == "invalid_options" and done["over"]


def test_each_host_is_asked_for_all_machines_and_for_the_seed_where_one_should_be():
    class Station:
        def __init__(self, name):
            self.name = name

        def run(self, arguments):
            if self.name == "p2":
                raise GridError("target_unreachable", "gone")
            return arguments

    looked = looked_at({name: Station(name) for name in ("p1", "p2")}, HOSTS, [move("web", uuid="a")], {"uri": "u"})
    assert looked["p1"] == {
        "uri": "u",
        "step": "look",
        "path": "/p1",
        "facts": True,
        "machines": [{"name": "web", "uuid": "a", "seed": True}],
    }
    assert looked["p2"]["failure"]["code"] == "target_unreachable"


def test_a_host_by_its_variables():
    told = once.end({"inventory_hostname": "p1", "ansible_host": "198.18.0.21", "virtuoso_site": "north"}, "/depot")
    assert {key: told[key] for key in ("name", "address", "path", "site")} == {
        "name": "p1",
        "address": "198.18.0.21",
        "path": "/depot",
        "site": "north",
    }
    own = once.end(
        {
            "inventory_hostname": "p2",
            "virtuoso_address": "198.18.0.22",
            "ansible_host": "p2.example",
            "virtuoso_depot": "/own",
        },
        "/depot",
    )
    assert (own["address"], own["path"], own["site"], own["provider"]["address"]) == (
        "198.18.0.22",
        "/own",
        "p2",
        "p2.example",
    )


def test_where_a_guest_probably_moves_live():
    moves = [move("a"), move("b"), move("c", "p2", "p2"), move("d", "p3"), move("e", "p3", None)]
    assert once.foreseen(moves, "auto") == once.foreseen(moves, "live") == [("p1", "p2"), ("p3", "p2")]
    assert once.foreseen(moves, "cold") == once.foreseen([], "auto") == []
    assert len(once.foreseen([move(str(number), f"p{number}", "there") for number in range(20)], "auto")) == 4
