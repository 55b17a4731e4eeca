# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules of placement as Ansible runs them: quotas, reservations, and placing under both."""

from __future__ import annotations

import json

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.virtuoso.grid.plugins.modules import order, placement, quota, registration, reservation

GIB = 2**30
IMAGE = {"name": "tiny@1", "digest": "sha256:" + "a" * 64, "size": GIB, "virtual_size": GIB}
FACTS = {
    **{"architecture": "x86_64", "cpus": 4, "memory": 8 * GIB, "disk": 99 * GIB, "virtualization": "qemu"},
    **{"memory_free": 8 * GIB, "disk_free": 99 * GIB, "memory_allocated": 0, "cpus_allocated": 0, "disk_allocated": 0},
}
TIMES = {"from": "2097-01-01T00:00:00Z", "to": "2097-02-01T00:00:00Z"}
RESERVATION = {
    "owner": "alice",
    "provider": "p1",
    "period": "100 ms",
    "slice": "50 ms",
    "cpus": 2,
    "memory": "4 GiB",
    **TIMES,
}


@pytest.fixture
def run(tmp_path, capsys):
    """Runs a module on a store; returns what it returns, with its exit code as ``rc``."""

    def call(module, *, check=False, **options):
        with patch_module_args(
            {"store": str(tmp_path / "grid.db"), "_ansible_check_mode": check, "_ansible_diff": True, **options}
        ):
            with pytest.raises(SystemExit) as ended:
                module.main()
        return {"rc": ended.value.code, **json.loads(capsys.readouterr().out)}

    return call


@pytest.fixture
def grid(run):
    """A store that knows one provider."""
    run(registration, providers=[{"name": "p1", "site": "north", "facts": FACTS}])
    return run


def place(run, *entries, owner="alice", providers=("p1",), **options):
    ordered = run(order, machines=[{"image": "tiny", "owner": owner, **entry} for entry in entries])
    machines = [{**machine["spec"], "uuid": machine["uuid"], "image": IMAGE} for machine in ordered["machines"]]
    return run(
        placement,
        machines=machines,
        providers=[{"name": name, "site": "north", **FACTS} for name in providers],
        **options,
    )


def codes(result, batch):
    return [item.get("failure", {}).get("code") for item in result[batch]]


def test_a_quota_is_set_once_changed_and_removed(run):
    entries = [{"owner": "alice", "machines": 2, "memory": "4 GiB"}, {"owner": "*", "machines": 1}]
    assert run(quota, check=True, quotas=entries)["changed"] is True
    first = run(quota, quotas=entries)
    assert first["changed"] is True and json.loads(first["diff"][0]["after"])["memory"] == 4 * GIB
    assert run(quota, quotas=entries)["changed"] is False
    changed = run(quota, quotas=[{"owner": "alice", "machines": 3}])
    assert [json.loads(changed["diff"][0][side])["machines"] for side in ("before", "after")] == [2, 3]
    assert run(quota, quotas=["alice", {"owner": "*"}], state="absent")["changed"] is True
    assert run(quota, quotas=["alice"], state="absent")["changed"] is False


def test_a_bad_quota_fails_alone(run):
    bad = [
        {"owner": "a/b"},
        {"owner": "bob", "memory": "lots"},
        {"owner": "bob", "machines": -1},
        {"owner": "bob", "cows": 1},
        "bob",
        {},
    ]
    result = run(quota, quotas=[*bad, {"owner": "carol", "vcpus": 0}])
    expected = [
        "invalid_owner",
        "invalid_size",
        "invalid_quota",
        "invalid_quota",
        "invalid_quota",
        "invalid_quota",
        None,
    ]
    assert codes(result, "quotas") == expected and result["changed"] and result["rc"] == 1


def test_placing_beyond_a_quota_fails_alone(run):
    run(quota, quotas=[{"owner": "alice", "vcpus": 3}])
    result = place(run, {"name": "a", "vcpus": 2}, {"name": "b", "vcpus": 2}, {"name": "c"})
    assert codes(result, "machines") == [None, "quota_exceeded", None]
    failure = result["machines"][1]["failure"]
    assert (failure["field"], failure["allowed"], failure["used"], failure["asked"]) == ("vcpus", 3, 2, 2)


def test_a_reservation_is_admitted_once_changed_and_given_up(grid):
    assert grid(reservation, check=True, reservations=[RESERVATION])["changed"] is True
    first = grid(reservation, reservations=[RESERVATION])
    assert first["changed"] is True and first["reservations"][0]["uuid"]
    again = grid(reservation, reservations=[RESERVATION])
    assert (again["changed"], again["reservations"][0]["uuid"]) == (False, first["reservations"][0]["uuid"])
    more = grid(reservation, reservations=[{**RESERVATION, "memory": "5 GiB"}])
    assert more["changed"] is True and json.loads(more["diff"][0]["before"])["memory"] == 4 * GIB
    which = {key: RESERVATION[key] for key in ("owner", "provider", "from", "to")}
    assert grid(reservation, reservations=[which], state="absent")["changed"] is True
    assert grid(reservation, reservations=[which], state="absent")["changed"] is False


def test_what_is_beyond_the_bound_is_refused_and_the_others_are_served(grid):
    """3.6 of 4 CPUs may be reserved."""
    small = {**RESERVATION, "memory": "1 GiB"}
    entries = [
        {**small, "cpus": 4, "slice": "90 ms"},
        {**small, "owner": "bob", "slice": "1 ms", "cpus": 1},
        {**small, "owner": "bob", "from": "2097-02-01T00:00:00Z", "to": "2097-02-02T00:00:00Z"},
    ]
    result = grid(reservation, reservations=entries)
    assert codes(result, "reservations") == [None, "reservation_refused", None]
    reason = result["reservations"][1]["failure"]["reason"]
    assert reason == "needs 0.01 CPUs reserved, 0 left at 2097-01-01T00:00:00Z (3.6 of 4 may be reserved)"
    assert codes(grid(reservation, reservations=[entries[1]], reservation_bound=1.0), "reservations") == [None]


def test_a_refused_change_leaves_what_was_admitted(grid):
    grid(reservation, reservations=[RESERVATION])
    refused = grid(reservation, reservations=[{**RESERVATION, "memory": "9 GiB"}])
    assert codes(refused, "reservations") == ["reservation_refused"]
    assert grid(reservation, reservations=[RESERVATION])["changed"] is False


def test_what_is_reserved_is_not_placed_for_others(grid):
    grid(reservation, reservations=[RESERVATION])
    refused = place(grid, {"name": "b", "memory": "4 GiB"}, owner="bob", host_reserve="0")
    assert codes(refused, "machines") == [None]
    refused = place(grid, {"name": "c", "memory": "1 GiB"}, owner="bob", host_reserve="0")
    assert codes(refused, "machines") == ["no_provider"]
    assert place(grid, {"name": "a", "memory": "4 GiB"}, host_reserve="0")["machines"][0]["provider"] == "p1"


def test_what_is_placed_is_not_reserved(grid):
    place(grid, {"name": "b", "memory": "5 GiB"}, owner="bob")
    refused = grid(reservation, reservations=[RESERVATION])
    assert refused["reservations"][0]["failure"]["reason"] == "needs 4 GiB of memory, 2.75 GiB are not taken"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"provider": "p9"}, "unknown_provider"),
        ({"owner": "a/b"}, "invalid_owner"),
        ({"to": "2096-01-01T00:00:00Z"}, "invalid_reservation"),
        ({"from": "2001-01-01T00:00:00Z", "to": "2001-01-02T00:00:00Z"}, "reservation_over"),
        ({"from": "whenever"}, "invalid_time"),
        ({"from": None}, "invalid_reservation"),
        ({"period": None}, "invalid_reservation"),
        ({"slice": "200 ms"}, "invalid_duration"),
        ({"cpus": 0}, "invalid_reservation"),
        ({"memory": "lots"}, "invalid_size"),
        ({"colour": "red"}, "invalid_reservation"),
    ],
)
def test_a_bad_reservation_fails_alone(grid, fields, code):
    result = grid(reservation, reservations=[{**RESERVATION, **fields}, RESERVATION])
    assert codes(result, "reservations") == [code, None] and result["reservations"][0]["failure"]["remedy"]


def test_a_provider_without_measurements_admits_nothing(run):
    run(registration, providers=[{"name": "p1", "site": "north"}])
    assert codes(run(reservation, reservations=[RESERVATION]), "reservations") == ["provider_unmeasured"]


def test_the_answer_says_how_it_came_about(run):
    machines = [{"name": f"m{number}", "memory": f"{number % 3 + 1} GiB"} for number in range(6)]
    result = place(run, *machines, providers=["p1", "p2", "p3"], within=1.0, seed=5)
    told = result["solver"]
    assert told["engine"] == "cp-sat" and told["library"] and told["cost"] <= told["greedy"] and not told["cut"]
    greedy = place(
        run,
        *({**machine, "name": "g" + machine["name"]} for machine in machines[:2]),
        providers=["p1"],
        solver="greedy",
    )
    assert greedy["solver"]["engine"] == "greedy"


def test_check_mode_chooses_what_the_run_will(run):
    run(quota, quotas=[{"owner": "carol", "machines": 1}])
    ordered = run(
        order,
        machines=[
            {"image": "tiny", "owner": "alice", "name": f"m{number}", "vcpus": number + 1} for number in range(5)
        ],
    )
    machines = [{**machine["spec"], "uuid": machine["uuid"], "image": IMAGE} for machine in ordered["machines"]]
    options = {
        "machines": machines,
        "providers": [{"name": name, "site": "north", **FACTS} for name in ("p1", "p2", "p3")],
        "within": 0.5,
    }
    checked = run(placement, check=True, **options)
    real = run(placement, **options)
    assert checked["machines"] == real["machines"] and checked["diff"] == real["diff"]
    assert checked["solver"] == real["solver"]


@pytest.mark.parametrize(
    "options",
    [
        {"within": 0},
        {"within": -1},
        {"hold": 0},
        {"seed": -1},
        {"memory_overcommit": 0},
        {"disk_overcommit": 1000},
        {"reservation_bound": 1.1},
    ],
)
def test_options_out_of_range_are_refused(run, options):
    failed = run(placement, machines=[], providers=[], **options)
    assert failed["failure"]["code"] == "invalid_" + next(iter(options)) and "Give a" in failed["msg"]
