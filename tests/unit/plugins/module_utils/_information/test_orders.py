# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Orders: made, changed, cancelled, refused."""

from __future__ import annotations

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._information.registration.orders import (
    RESERVED_NAMES,
    same_image,
    shown_name,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store import query

WEB1 = {"name": "web1", "image": "tiny"}
DIGEST = "sha256:" + "a" * 64
KEY = "ssh-ed25519 " + "A" * 68

HOSTILE_NAMES = [
    *(
        "we<b",
        "we'b",
        'we"b',
        "we;b",
        "../web",
        "/etc/passwd",
        "web 1",
        "web\n1",
        "web\0",
        "{{ web }}",
        "{% raw %}",
        "$(id)",
        "`id`",
        "%s%n",
    ),
    *(
        "a" * 64,
        "a" * 300,
        "-web",
        "web-",
        "WEB1",
        "wéb",
        "web\u202e1",
        ".",
        "..",
        "",
        " ",
        "-oProxyCommand=id",
        "web_1",
        "web.1",
        "😀",
    ),
    *(None, 1, True, [], {}, ["web1"], b"web1"),
]


def code(result):
    return result.get("failure", {}).get("code")


def test_an_order_gets_a_reference_and_is_a_future(grid):
    result = grid.order(WEB1)[0]
    assert result["changed"] and result["actions"] == ["order"] and result["state"] == "future"
    assert (
        result["reference"] == f"urn:uuid:{result['uuid']}" and result["provider"] is None and result["generation"] == 1
    )
    assert result["spec"]["memory"] == 512 * 2**20
    row = grid.machine("web1")
    assert (row["uuid"], row["owner"], row["future"], row["memory"]) == (result["uuid"], "alice", True, 512 * 2**20)


def test_the_same_order_again_changes_nothing(grid):
    first, again = grid.order(WEB1)[0], grid.order({**WEB1, "memory": "0.5 GiB"})[0]
    assert not again["changed"] and again["actions"] == [] and again["uuid"] == first["uuid"]
    assert grid.diffs == []


def test_another_wish_changes_the_order(grid):
    first = grid.order(WEB1)[0]
    changed = grid.order({**WEB1, "memory": "1 GiB", "image": "debian-12"})[0]
    assert changed["actions"] == ["change"] and changed["uuid"] == first["uuid"] and changed["state"] == "future"
    assert '"memory": 536870912' in grid.diffs[0]["before"] and '"memory": 1073741824' in grid.diffs[0]["after"]
    assert grid.machine("web1")["memory"] == 2**30
    with grid.store.reading() as connection:
        assert [event["what"] for event in query.events(connection, first["uuid"])] == ["ordered", "changed"]


def test_check_mode_says_what_the_real_run_does_and_writes_nothing(grid, tmp_path):
    entries = [WEB1, {"name": "web2", "image": "nosuch"}, {"name": "web3", "image": "tiny", "memory": "2 GiB"}]
    checked = grid.order(*entries, check=True)
    assert not list(tmp_path.iterdir())
    assert checked[0]["uuid"] is None and checked[0]["reference"] is None
    checked_diffs, done = grid.diffs, grid.order(*entries)
    same = ("name", "changed", "actions", "state", "spec", "msg", "failure")
    assert [{key: result.get(key) for key in same} for result in checked] == [
        {key: result.get(key) for key in same} for result in done
    ]
    assert checked_diffs == grid.diffs
    changed = grid.order({**WEB1, "vcpus": 2}, check=True)[0]
    assert changed["actions"] == ["change"] and changed["uuid"] == done[0]["uuid"]
    assert grid.machine("web1")["spec"]["vcpus"] == 1


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_bad_name_fails_alone(grid, name):
    bad, good = grid.order({"name": name, "image": "tiny"}, WEB1)
    assert code(bad) in ("invalid_name", "invalid_order")
    assert len(bad["name"]) <= 64 and "\n" not in bad["name"] and len(bad["msg"]) < 400
    assert good["changed"] and grid.counts()["orders"] == 1


@pytest.mark.parametrize(
    "entry",
    [
        None,
        1,
        "web1",
        [],
        ["web1"],
        {},
        {"image": "tiny"},
        {"name": "web1"},
        {**WEB1, "color": "red"},
        {**WEB1, "vcpus": "many"},
    ],
)
def test_what_is_no_order_fails_alone(grid, entry):
    bad, good = grid.order(entry, {"name": "web2", "image": "tiny"})
    assert code(bad) == "invalid_order" and good["changed"]


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("memory", "-1 GiB", "invalid_size"),
        ("memory", "0", "invalid_size"),
        ("memory", "1 EiB", "invalid_size"),
        ("memory", "lots", "invalid_size"),
        ("disk", "1", "invalid_size"),
        ("disk", "100 PiB", "invalid_size"),
        ("vcpus", 0, "invalid_vcpus"),
        ("vcpus", -1, "invalid_vcpus"),
        ("vcpus", 10**9, "invalid_vcpus"),
        ("owner", "al ice", "invalid_owner"),
        ("network", "../x", "invalid_network"),
        ("image", "../tiny", "invalid_image"),
        ("image", "debian", "unknown_image"),
        ("image", "debian@12", "unknown_image"),
        ("tags", ["<b>"], "invalid_tag"),
    ],
)
def test_a_bad_value_fails_with_its_code(grid, field, value, expected):
    assert code(grid.order({**WEB1, field: value})[0]) == expected
    assert grid.counts()["object"] == 0


@pytest.mark.parametrize("image", ["tiny", "tiny@1", DIGEST])
def test_an_image_is_ordered_by_name_version_or_digest(grid, image):
    assert grid.order({**WEB1, "image": image})[0]["changed"]


def test_an_unknown_image_tells_the_known_ones(grid):
    failed = grid.order({**WEB1, "image": "windows"})[0]
    assert failed["failure"]["known"] == ["debian-12", "tiny"] and "debian-12, tiny" in failed["msg"]


def test_a_name_twice_fails_both_and_serves_the_rest(grid):
    first, other, second = grid.order(WEB1, {"name": "web2", "image": "tiny"}, {**WEB1, "memory": "1 GiB"})
    assert code(first) == code(second) == "duplicate_name"
    assert first["failure"]["entries"] == [1, 3] and "entries 1 and 3" in second["msg"]
    assert other["changed"] and grid.machine("web1") is None


@pytest.mark.parametrize("name", sorted(RESERVED_NAMES))
def test_names_that_mean_something_to_ansible_are_refused(grid, name):
    assert code(grid.order({**WEB1, "name": name})[0]) == "reserved_name"


def test_a_name_belongs_to_who_ordered_it(grid):
    grid.order(WEB1)
    failed = grid.order({**WEB1, "owner": "bob"})[0]
    assert code(failed) == "name_taken" and "alice" in failed["msg"]
    assert grid.machine("web1")["owner"] == "alice"


def test_a_providers_name_is_taken(grid):
    grid.provider("node1")
    assert code(grid.order({**WEB1, "name": "node1"})[0]) == "name_taken"


def test_an_existing_machines_order_changes_but_not_its_image(grid):
    uuid = grid.running()
    changed = grid.order({**WEB1, "memory": "1 GiB"})[0]
    assert changed["actions"] == ["change"] and changed["uuid"] == uuid and changed["state"] == "running"
    assert changed["provider"] == "provider1" and changed["image"] == {"name": "tiny@1", "digest": DIGEST}
    assert grid.machine("web1")["memory"] == 512 * 2**20  # what it has, not what it is to have
    failed = grid.order({**WEB1, "image": "debian-12"})[0]
    assert code(failed) == "cannot_change" and failed["failure"]["field"] == "image"
    assert grid.machine("web1")["spec"]["memory"] == 2**30


def test_an_existing_machines_disk_only_grows(grid):
    grid.running(disk=4 * 2**30)
    failed = grid.order({**WEB1, "disk": "3 GiB"})[0]
    assert code(failed) == "cannot_change" and "4 GiB" in failed["msg"]
    assert grid.order({**WEB1, "disk": "5 GiB"})[0]["changed"]


@pytest.mark.parametrize(
    ("wanted", "ordered", "actual", "same"),
    [
        ("tiny", "tiny", None, True),
        ("tiny", "tiny@1", None, True),
        ("tiny@1", "tiny", None, True),
        ("tiny@1", "tiny", "tiny@1", True),
        ("tiny@2", "tiny", "tiny@1", False),
        ("tiny@2", "tiny@1", None, False),
        ("debian-12", "tiny", "tiny@1", False),
        (DIGEST, "tiny", "tiny@1", True),
        ("sha256:" + "b" * 64, "tiny", "tiny@1", False),
        (DIGEST, DIGEST, None, True),
        ("tiny", DIGEST, None, False),
        ("tiny", DIGEST, "tiny@1", True),
        # rolled back to a version of another image
        ("tiny", "tiny", "web@2", True),
        ("web", "tiny", "web@2", True),
        ("tiny@3", "tiny", "web@2", False),
    ],
)
def test_which_words_name_the_same_image(wanted, ordered, actual, same):
    facts = {"image": {"name": actual, "digest": DIGEST}} if actual else {}
    assert same_image(wanted, {"spec": {"image": ordered}, "facts": facts}) is same


def test_cancelling_leaves_no_row(grid):
    grid.order(WEB1)
    grid.provider()
    grid.hold("web1", "provider1")
    before = grid.counts()
    result = grid.order("web1", absent=True)[0]
    assert result["actions"] == ["cancel"] and result["state"] == "absent"
    after = grid.counts()
    assert {table: before[table] - after[table] for table in before if before[table] != after[table]} == {
        "object": 1,
        "host": 1,
        "interface": 1,
        "orders": 1,
        "virtualization": 1,
        "futures": 1,
        "event": 1,
    }
    again = grid.order(WEB1, absent=True)[0]
    assert not again["changed"] and again["state"] == "absent" and again["uuid"] is None


def test_check_mode_cancels_nothing(grid):
    grid.order(WEB1)
    assert grid.order("web1", absent=True, check=True)[0]["actions"] == ["cancel"]
    assert grid.machine("web1")


def test_what_can_not_be_cancelled(grid):
    grid.running()
    grid.order({"name": "web2", "image": "tiny"})
    assert code(grid.order("web1", absent=True)[0]) == "machine_exists"
    assert code(grid.order({"name": "web2", "owner": "bob"}, absent=True)[0]) == "not_owner"
    assert [code(result) for result in grid.order("web2", "web2", "../x", 7, absent=True)] == [
        "duplicate_name",
        "duplicate_name",
        "invalid_name",
        "invalid_name",
    ]
    assert grid.machine("web2")


def test_a_machine_ordered_anew_after_cancelling_is_another_one(grid):
    first = grid.order(WEB1)[0]
    grid.order(WEB1, absent=True)
    assert grid.order(WEB1)[0]["uuid"] != first["uuid"]


def test_many_orders_are_one_transaction(grid):
    results = grid.order(*({"name": f"web{number}", "image": "tiny"} for number in range(1200)))
    assert len({result["uuid"] for result in results}) == 1200
    assert not any(
        result["changed"]
        for result in grid.order(*({"name": f"web{number}", "image": "tiny"} for number in range(1200)))
    )


@pytest.mark.parametrize(
    ("entry", "shown"),
    [({"name": "web1"}, "web1"), ({}, "entry 3"), (None, "entry 3"), ("web1", "web1"), ({"name": "a\nb"}, r"'a\nb'")],
)
def test_what_an_entry_is_called(entry, shown):
    assert shown_name(entry, 3) == shown


def test_a_name_of_the_inventory_is_taken_for_new_machines(grid):
    (failed,) = grid.order({**WEB1, "name": "db1"}, inventory=["db1"])
    assert code(failed) == "name_taken" and "host_vars" in failed["failure"]["remedy"]
    grid.order({**WEB1, "name": "db1"})
    assert grid.order({**WEB1, "name": "db1", "memory": "1 GiB"}, inventory=["db1"])[0]["changed"]
