# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps of a move in a play: what each is about, and what its results make of it."""

from __future__ import annotations

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._migration import plan as play
from ansible_collections.virtuoso.grid.plugins.module_utils._migration import results, steps

MIB = 2**20
UUID = "5f0d5b1e-6c1c-4f3a-9c0f-2d6a1f0e8b11"
PROVIDERS = ["p1", "p2", "p3"]


def order(name="web1", provider="p1", **more):
    return {
        "name": name,
        "uuid": f"{name}-uuid",
        "provider": provider,
        "state": "running",
        "generation": 1,
        "spec": {"memory": 64 * MIB},
        **more,
    }


def view(name="web1", **more):
    return {
        "name": name,
        "uuid": f"{name}-uuid",
        "state": "running",
        "generation": 1,
        "moving": None,
        "incoming": None,
        "memory": 64 * MIB,
        "disk": 96 * MIB,
        "disk_used": MIB,
        "layers": ["sha256:a"],
        "image": {"name": "tiny@1", "digest": "sha256:a"},
        "machine_type": "pc-q35-7.2",
        "virtualization": "qemu",
        "network": "virtuoso",
        "mac": "02:00:00:00:00:01",
        "tied": [],
        "pages": None,
        "snapshots": 0,
        "facts": {"name": name, "uuid": f"{name}-uuid", "state": "running"},
        **more,
    }


def absent(name="web1", **more):
    return {"name": name, "uuid": f"{name}-uuid", "state": "absent", "incoming": None, **more}


HOST = {
    "memory": 1024 * MIB,
    "memory_free": 1024 * MIB,
    "memory_allocated": 0,
    "disk_free": 1024 * MIB,
    "networks": ["virtuoso"],
    "machine_types": ["pc-q35-7.2"],
    "virtualization": "qemu",
    "libvirt_version": "9.0.0",
    "qemu_version": "7.2.0",
    "layers": ["sha256:a"],
    "domains": {},
    "leases": {},
    "postcopy": False,
}


def looked(**machines):
    return {host: {"host": HOST, "machines": rows} for host, rows in machines.items()}


def planned(rows, to="p2", orders=None, **options):
    wanted = play.moves(orders or [order()], to, PROVIDERS)
    return play.plan(wanted["moves"], rows, play.Options(**options))


def test_who_goes_where():
    found = play.moves([order(), order("db1", "p2"), order("new", None, state="future")], {"web1": "p3"}, PROVIDERS)
    assert [(move["name"], move["source"], move["target"]) for move in found["moves"]] == [
        ("web1", "p1", "p3"),
        ("db1", "p2", None),
    ]
    assert [row["failure"]["code"] for row in found["failed"]] == ["machine_unknown"]
    assert play.moves([order()], "p9", PROVIDERS)["failed"][0]["failure"]["code"] == "no_such_provider"
    assert play.moves([order()], "", ["p1"])["failed"][0]["failure"]["code"] == "no_provider"


def test_the_next_generation_goes_live():
    (move,) = planned(looked(p1=[view(generation=4)], p2=[absent()]))["moves"]
    assert (move["source"], move["target"], move["mode"], move["generation"], move["was"]) == (
        "p1",
        "p2",
        "live",
        5,
        "running",
    )
    # The store may know of a generation that never came to be.
    (move,) = planned(looked(p1=[view()], p2=[absent()]), orders=[order(generation=1)])["moves"]
    assert move["generation"] == 2


def test_one_that_is_there_already_is_only_recorded():
    plan = planned(looked(p1=[absent()], p2=[view(generation=2)]))
    assert plan["moves"] == [] and plan["rows"][0]["changed"] is False and plan["rows"][0]["provider"] == "p2"
    assert plan["seen"] == [{"name": "web1", "uuid": "web1-uuid", "state": "running", "provider": "p2"}]


def test_a_silent_target_and_a_refusing_one():
    rows = looked(p1=[view()])
    assert planned({**rows, "p2": {"msg": "no route"}})["rows"][0]["failure"]["code"] == "target_unreachable"
    refused = planned(looked(p1=[view(network="lan", tied=["x"])], p2=[absent()]))
    assert refused["moves"] == [] and refused["rows"][0]["failure"]["code"] == "device_tied"
    assert [each["code"] for each in refused["rows"][0]["failure"]["all"]] == ["device_tied", "network_missing"]


def test_machines_of_one_play_share_the_target_s_room():
    orders = [order(f"m{number}") for number in range(20)]
    rows = looked(p1=[view(f"m{number}") for number in range(20)], p2=[absent(f"m{number}") for number in range(20)])
    plan = planned(rows, orders=orders, reserve=256 * MIB)
    assert len(plan["moves"]) == 12
    assert {row["failure"]["code"] for row in plan["rows"]} == {"no_memory"}


MARK = {"generation": 2, "to": "p2", "attempt": "t", "autostart": True}


def test_an_interrupted_live_move_asks_the_source_first():
    plan = planned(looked(p1=[view(moving=MARK)], p2=[absent(incoming={"complete": False})]))
    assert plan["moves"] == []
    actions = {
        turn: {host: [entry["action"] for entry in group] for host, group in by_host.items()}
        for turn, by_host in plan["settle"].items()
    }
    assert actions == {"first": {"p1": ["restore"]}, "then": {"p2": ["discard"]}}


@pytest.mark.parametrize("state", ["stopped", "hibernated"])
@pytest.mark.parametrize("incoming", [None, {"complete": True}])
def test_an_interrupted_move_of_files_tells_the_target_first(state, incoming):
    plan = planned(looked(p1=[view(moving=MARK, state=state)], p2=[absent(incoming=incoming)]))
    first, then = plan["settle"]["first"], plan["settle"]["then"]
    assert [entry["action"] for entry in first["p2"]] == ["discard"] and first["p2"][0]["attempt"] == "t"
    assert [entry["action"] for entry in then["p1"]] == ["restore"]


def test_one_that_was_put_to_sleep_and_not_marked_is_woken_where_it_is():
    plan = planned(looked(p1=[view(state="hibernated", slept="running")], p2=[absent()]))
    settle = plan["settle"]
    assert [entry["action"] for entry in settle["first"]["p1"]] == ["restore"]
    assert settle["then"] == {} and plan["rows"] == []


def test_a_step_that_failed_is_not_a_host_that_does_not_answer():
    crashed = {"msg": "MODULE FAILURE", "module_stderr": "Traceback\nKeyError: 'x'", "failed": False}
    (row,) = planned({**looked(p2=[absent()]), "p1": crashed})["rows"]
    assert (
        row["failure"]["code"] == "step_failed"
        and "MODULE FAILURE KeyError: 'x'" in row["msg"]
        and "answer" not in row["msg"]
    )
    (row,) = planned(
        {**looked(p2=[absent()]), "p1": {"msg": "no libvirt", "failure": {"code": "libvirt_unreachable"}}}
    )["rows"]
    assert row["failure"]["code"] == "libvirt_unreachable"
    (row,) = planned({**looked(p2=[absent()]), "p1": {"msg": "no route", "unreachable": True}})["rows"]
    assert row["failure"]["code"] == "host_unreachable"
    (row,) = planned({**looked(p1=[view()]), "p2": crashed})["rows"]
    assert row["failure"]["code"] == "target_unreachable" and "KeyError" in row["msg"]
    assert [
        row["name"]
        for row in results.failed_hosts({"p1": crashed, "p2": {"unreachable": True}, "p3": {"machines": []}})
    ] == ["p1"]
    wanted = play.moves([order()], None, PROVIDERS)["moves"]
    assert play.placed(wanted, [crashed])["failed"][0]["failure"]["code"] == "step_failed"
    row = row_of(steps.advance(journey(go("a")), "prepare", crashed))
    assert row["failure"]["code"] == "step_failed" and "KeyError" in row["msg"]


def test_what_arrived_is_finished_before_its_source_is_released():
    settle = planned(
        looked(p1=[view(moving=MARK, state="stopped")], p2=[view(generation=2, incoming={"complete": False})])
    )["settle"]
    first, then = settle["first"], settle["then"]
    assert first["p2"][0]["action"] == "finish" and first["p2"][0]["autostart"] is True
    assert then["p1"][0]["action"] == "release" and then["p1"][0]["generation"] == 2


def test_what_follows_waits_for_what_comes_first():
    then = {"p1": [{"uuid": "a"}, {"uuid": "b"}]}
    first = {"p2": {"machines": [{"uuid": "a", "failed": True}, {"uuid": "b"}]}}
    assert play.remaining(then, first) == {"p1": [{"uuid": "b"}]}
    assert play.remaining(then, {"p2": {"msg": "unreachable", "unreachable": True}}) == {"p1": []}
    after = play.settled({"first": {}, "then": then}, first, {"p1": {"machines": [{"uuid": "b"}]}})
    assert [(row["uuid"], row["provider"]) for row in after["done"]] == [("b", "p2"), ("b", "p1")]
    assert [row["uuid"] for row in after["failed"]] == ["a"] and after["then"] == {"p1": [{"uuid": "b"}]}


def go(name, source="p1", target="p2", size=1, **more):
    return {
        "name": name,
        "uuid": name,
        "source": source,
        "target": target,
        "size": size,
        "link": (source, target),
        "status": "planned",
        "mode": "live",
        "was": "running",
        "missing": [],
        "image": {"name": "tiny@1", "digest": "sha256:a"},
        "postcopy": False,
        "plan": "",
        **more,
    }


def test_the_largest_go_first_within_the_limits():
    (wave,) = steps.waves([go("a", size=1), go("b", size=3), go("c", size=2)], 2, 4)
    assert [(journey["parallel"], [machine["name"] for machine in journey["machines"]]) for journey in wave] == [
        (2, ["b", "c", "a"])
    ]
    # Two sources to one target share what it may take; a third waits.
    first, second = steps.waves([go("a", "p1", "p4", 3), go("b", "p2", "p4", 2), go("c", "p3", "p4", 1)], 2, 4)
    assert [journey["source"] for journey in first] == ["p1", "p2"] and [journey["source"] for journey in second] == [
        "p3"
    ]
    # A link that is full
    link = {"link": ("x", "y")}
    waves = steps.waves([go("a", "p1", "p2", **link), go("b", "p3", "p4", **link)], 2, 1)
    assert [len(wave) for wave in waves] == [1, 1]
    assert steps.waves([], 2, 2) == []
    # As -e gives them; and none at a time is one.
    assert [journey["parallel"] for journey in steps.waves([go("a"), go("b")], "2", "2")[0]] == [2]
    assert [journey["parallel"] for journey in steps.waves([go("a"), go("b")], 0, "0")[0]] == [1]


@pytest.mark.parametrize("per_host", [1, 2, 5])
@pytest.mark.parametrize("per_link", [1, 3])
def test_no_limit_is_passed(per_host, per_link):
    many = [go(f"m{n}", f"p{n % 3}", f"p{3 + n % 2}", n, link=("a", "b") if n % 3 else ("a", "c")) for n in range(30)]
    waves = steps.waves(many, per_host, per_link)
    assert sorted(machine["name"] for wave in waves for journey in wave for machine in journey["machines"]) == sorted(
        move["name"] for move in many
    )
    for wave in waves:
        for host in {journey[end] for journey in wave for end in ("source", "target")}:
            assert (
                sum(journey["parallel"] for journey in wave if host in (journey["source"], journey["target"]))
                <= per_host
            )
        for link in {tuple(journey["machines"][0]["link"]) for journey in wave}:
            assert (
                sum(journey["parallel"] for journey in wave if tuple(journey["machines"][0]["link"]) == link)
                <= per_link
            )


def journey(*machines):
    ((found,),) = steps.waves(list(machines), 2, 2)
    return found


def row_of(after):
    (row,) = [machine["row"] for machine in after["machines"] if "row" in machine]
    return row


def through(after, *rows):
    for step, row in rows:
        after = steps.advance(
            after, step, {"machines": [{"uuid": machine["uuid"], **row} for machine in after["machines"]]}
        )
    return after


FACTS = {"facts": {"name": "a", "uuid": "a", "state": "running"}}
BAD = {"failed": True, "msg": "no", "failure": {"code": "x"}}


def test_live_to_the_end():
    after = through(journey(go("a")), ("prepare", {}), ("send", {"stats": {"downtime": 7}, "autostart": True}))
    (entry,) = steps.entries(after, "receive")
    assert entry["action"] == "finish" and entry["autostart"] is True
    after = through(after, ("receive", FACTS))
    assert steps.entries(after, "settle") == []
    assert row_of(after)["provider"] == "p2" and row_of(after)["stats"]["downtime"] == 7
    assert after["machines"][0]["seen"]["provider"] == "p2"


def test_files_to_the_end_and_the_source_is_released_last():
    after = journey(go("a", mode="hibernated"))
    after = through(after, ("prepare", {}), ("send", {"files": {"disk.qcow2": {}}, "port": 5}))
    (entry,) = steps.entries(after, "receive")
    assert (entry["action"], entry["start"], entry["port"]) == ("take", True, 5)
    after = through(after, ("receive", FACTS))
    assert [entry["action"] for entry in steps.entries(after, "settle")] == ["release"]
    after = through(after, ("settle", {}))
    assert row_of(after)["actions"] == ["migrate hibernated"] and after["machines"][0]["status"] == "done"


def test_what_fails_is_undone():
    first = journey(go("a"))
    assert steps.entries(through(first, ("prepare", BAD)), "send") == []
    live = through(first, ("prepare", {}), ("send", {**BAD, "failure": {"code": "move_failed", "copy": "source"}}))
    assert [entry["action"] for entry in steps.entries(live, "receive")] == ["discard"]
    kept = row_of(through(live, ("receive", {**BAD, "msg": "it runs", "failure": {"code": "machine_here"}})))
    assert kept["failure"]["code"] == "move_failed" and kept["msg"].startswith("no; ") and "it runs" in kept["msg"]
    # Where nothing can be told, nothing is thrown away.
    lost = through(first, ("prepare", {}), ("send", {**BAD, "failure": {"code": "move_failed", "copy": None}}))
    assert steps.entries(lost, "receive") == []
    first = journey(go("a", mode="cold", was="stopped"))
    # Only where the target says that it has nothing of it.
    here = through(first, ("prepare", {}), ("send", {"files": {}, "port": 5}), ("receive", BAD))
    assert steps.entries(here, "settle") == [] and row_of(here)["failed"]
    away = {**BAD, "failure": {"code": "x", "copy": "source"}}
    cold = through(first, ("prepare", {}), ("send", {"files": {}, "port": 5}), ("receive", away))
    (entry,) = steps.entries(cold, "settle")
    assert entry["action"] == "restore" and entry["start"] is False
    done = through(cold, ("settle", FACTS))
    assert row_of(done)["failed"] and done["machines"][0]["seen"]["provider"] == "p1"


def test_a_host_that_goes_silent_leaves_the_rest_to_the_next_run():
    after = journey(go("a", mode="cold", was="stopped"))
    after = through(after, ("prepare", {}), ("send", {"files": {}, "port": 5}))
    after = steps.advance(after, "receive", {"unreachable": True, "msg": "gone"})
    assert steps.entries(after, "settle") == [] and row_of(after)["failure"]["code"] == "host_unreachable"


def test_the_seed_goes_to_the_target_only_when_it_prepares():
    first = journey(go("a", seed="s", row={}, seen={}))
    assert steps.entries(first, "prepare")[0]["seed"] == "s"
    (entry,) = steps.entries(through(first, ("prepare", {})), "send")
    assert not {"seed", "row", "seen", "status"} & set(entry)


def test_an_image_that_does_not_come_keeps_its_machines_back():
    first = journey(go("a", missing=["sha256:a"]), go("b"))
    assert first["images"] == [{"name": "tiny@1", "digest": "sha256:a"}] and journey(go("b"))["images"] == []
    full = {"name": "tiny@1", "digest": "sha256:a", "failed": True, "msg": "full", "failure": {"code": "disk_full"}}
    after = steps.without_image(first, {"images": [full]})
    assert [entry["name"] for entry in steps.entries(after, "prepare")] == ["b"]
    assert row_of(after)["failure"]["code"] == "disk_full"
    assert (
        row_of(steps.without_image(first, {"unreachable": True, "msg": "gone"}))["failure"]["code"] == "image_missing"
    )
    brought = steps.without_image(first, {"images": [{"name": "tiny@1", "digest": "sha256:a"}]})
    assert len(steps.entries(brought, "prepare")) == 2 and steps.without_image(first, None) == first


def test_a_journey_that_could_not_be_made_is_told_for_each_machine():
    wave = [journey(go("a"), go("b", status="failed", row={"name": "b", "failed": True}))]
    (after,) = steps.arrived(wave, {"p1>p2": {"unreachable": True, "msg": "gone"}})
    assert [row["row"].get("failure", {}).get("code") for row in after["machines"]] == ["host_unreachable", None]
    (after,) = steps.arrived(wave, {"p1>p2": {"machines": [{"uuid": "a", "status": "done"}]}})
    assert after["machines"] == [{"uuid": "a", "status": "done"}]


def test_check_mode_tells_the_plan():
    first = journey(go("a", missing=["sha256:a"], plan="live, ..."))
    row = row_of(steps.foretold(through(first, ("prepare", {}))))
    assert row["actions"] == ["bring image", "migrate live"] and row["plan"] == "live, ..."
    assert row_of(steps.foretold(through(first, ("prepare", BAD))))["failed"]


def test_results_by_host():
    some = [
        {"migrate__item": "p1", "machines": []},
        {"migrate__item": {"source": "p1", "target": "p2"}, "machines": [1]},
        {"migrate__item": {"host": "p3", "macs": []}, "part": {}},
        {"migrate__item": "p4", "skipped": True},
    ]
    assert set(results.by_host([{"results": some}, None, {"skipped": True}])) == {"p1", "p1>p2", "p3"}


def test_what_was_on_its_way_anywhere():
    told = {
        "p1": {"machines": [], "unsettled": [{"uuid": "web1-uuid", "name": "web1"}]},
        "p2": {"machines": [], "unsettled": [{"uuid": "web1-uuid", "name": None}, {"uuid": UUID, "name": None}]},
    }
    chosen = play.unsettled({**told, "p3": {"msg": "no libvirt"}}, [order()], PROVIDERS)
    found = chosen["moves"]
    assert [row["name"] for row in chosen["failed"]] == ["p3"]
    assert [(move["name"], move["source"], move["target"]) for move in found] == [
        ("web1", "p1", None),
        (UUID, "p2", None),
    ]
    assert found[1]["question"] == {"name": None, "uuid": UUID, "source": "p2"}
    plan = play.plan(found[:1], looked(p1=[view()], p2=[absent()]))
    assert plan["moves"] == [] and plan["seen"][0]["provider"] == "p1"


def test_targets_that_placement_has_chosen():
    wanted = play.moves([order(), order("db1")], None, PROVIDERS)["moves"]
    (group,) = play.to_place(
        wanted, {**looked(p1=[view(), view("db1")], p2=[]), "p3": {"msg": "down"}}, {"p2": "north"}
    )
    assert (
        group["source"] == "p1"
        and [provider["name"] for provider in group["providers"]] == ["p2", "p3"]
        and group["providers"][1]["unreachable"]
    )
    none = {"name": "db1", "failed": True, "msg": "full", "failure": {"code": "no_provider"}}
    placed = play.placed(wanted, [{"machines": [{"name": "web1", "provider": "p2"}, none]}])
    assert [move["target"] for move in placed["moves"]] == ["p2"] and placed["failed"][0]["failure"][
        "code"
    ] == "no_provider"
