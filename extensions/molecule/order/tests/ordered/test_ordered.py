# SPDX-License-Identifier: GPL-3.0-or-later
"""After the first run: every machine of the list is ordered, and is a future."""

from __future__ import annotations

import json
import uuid

testinfra_hosts = ["local://"]

NAMES = {"mol-web1", "mol-web2", "mol-db1", "mol-own1"}
MIB = 2**20


def test_store_is_for_its_owner_only(host, build):
    assert host.file(str(build / "state")).mode == 0o700
    assert host.file(str(build / "state" / "grid.db")).mode == 0o600


def test_all_are_ordered(orders):
    assert orders.keys() == NAMES
    assert {name: order["owner"] for name, order in orders.items()} == {
        "mol-web1": "alice",
        "mol-web2": "bob",
        "mol-db1": "alice",
        "mol-own1": "alice",
    }


def test_all_are_futures_on_no_provider(orders, rows, told):
    assert {row["uuid"] for row in rows("SELECT uuid FROM futures")} == {order["uuid"] for order in orders.values()}
    assert rows("SELECT * FROM virtualization") == []
    assert {machine["state"] for machine in told.values()} == {"future"}
    assert {machine["provider"] for machine in told.values()} == {None}


def test_reference_is_the_uuid(orders, told):
    for name, machine in told.items():
        assert machine["reference"] == f"urn:uuid:{uuid.UUID(orders[name]['uuid'])}"


def test_sizes_are_bytes_in_whole_mib(orders):
    spec = orders["mol-db1"]["spec"]
    assert (spec["memory"], spec["disk"], spec["vcpus"]) == (1024 * MIB, 3815 * MIB, 2)
    assert orders["mol-web1"]["spec"]["memory"] == 96 * MIB


def test_what_was_asked_for_is_kept(orders):
    spec = orders["mol-db1"]["spec"]
    assert spec["packages"] == ["postgresql"]
    assert [user["name"] for user in spec["users"]] == ["alice"]
    assert spec["users"][0]["ssh_authorized_keys"][0].startswith("ssh-ed25519 ")
    assert spec["performance"] == {"cpu_shares": 200}
    assert orders["mol-web1"]["spec"]["tags"] == ["demo", "front"]
    assert orders["mol-web2"]["spec"]["goal"] == "pack"


def test_history_tells_when_each_was_ordered(orders, rows):
    """Once: the second run added nothing."""
    events = rows("SELECT object, what FROM event")
    assert sorted((event["object"], event["what"]) for event in events) == sorted(
        (order["uuid"], "ordered") for order in orders.values()
    )


def test_inventory_shows_futures_only_where_asked(ansible, build, tmp_path):
    source = tmp_path / "grid.yml"
    settings = {"plugin": "virtuoso.grid.grid", "store": str(build / "state" / "grid.db")}
    source.write_text(json.dumps(settings), encoding="utf-8")
    assert json.loads(ansible("ansible-inventory", "-i", str(source), "--list"))["_meta"]["hostvars"].keys() == set()
    source.write_text(json.dumps({**settings, "include": ["future"]}), encoding="utf-8")
    listed = json.loads(ansible("ansible-inventory", "-i", str(source), "--list"))
    assert set(listed["machines"]["hosts"]) == NAMES
    assert set(listed["tag_front"]["hosts"]) == {"mol-web1"}
    assert set(listed["owner_bob"]["hosts"]) == {"mol-web2"}
