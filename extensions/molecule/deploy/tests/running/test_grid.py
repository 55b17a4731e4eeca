# SPDX-License-Identifier: GPL-3.0-or-later
"""Running machines as the store and the inventory show them."""

from __future__ import annotations

import json

testinfra_hosts = ["local://"]

NAMES = {"mol-web1", "mol-web2"}


def plain(value):
    return value["__ansible_unsafe"] if isinstance(value, dict) else value


def test_there_is_one_on_each_provider(machines):
    assert machines.keys() == NAMES
    assert {machine["provider"] for machine in machines.values()} == {"provider1", "provider2"}
    assert {machine["state"] for machine in machines.values()} == {"running"}


def test_none_is_a_future(rows):
    assert rows("SELECT * FROM futures") == []


def test_order_made_before_became_the_machine(rows, machines):
    events = rows("SELECT what FROM event WHERE object = ? ORDER BY id", machines["mol-web1"]["uuid"])
    assert [event["what"] for event in events][:2] == ["ordered", "changed"]


def test_inventory_groups_them(inventory):
    groups = {name: set(group.get("hosts", [])) for name, group in inventory.items() if name != "_meta"}
    for name in ("machines", "state_running", "owner_alice", "tag_molecule"):
        assert groups[name] == NAMES
    assert {name for name in groups if name.startswith("image_tiny")} != set()
    assert groups["site_site_a"] | groups["site_site_b"] >= NAMES
    assert groups["site_site_a"].isdisjoint(groups["site_site_b"])
    assert groups["providers"] == {"provider1", "provider2"}


def test_inventory_tells_how_to_reach_them(inventory, machines):
    for name, machine in machines.items():
        told = inventory["_meta"]["hostvars"][name]
        # What hosts and guests said is marked, and never taken for a template.
        assert told["ansible_host"] == {"__ansible_unsafe": machine["address"]}
        assert plain(told["virtuoso_provider"]) == machine["provider"]
        assert plain(told["virtuoso_reference"]) == f"urn:uuid:{machine['uuid']}"
        # The image tiny has no other user.
        assert plain(told["ansible_user"]) == "root"


def test_ansible_reaches_them_through_their_providers(ansible):
    out = ansible("ansible", "machines", "-m", "ansible.builtin.raw", "-a", "hostname", "--one-line")
    said = {line.split(" | ")[0]: line.rpartition("(stdout) ")[2].split("\\r\\n")[0] for line in out.splitlines()}
    assert said == {name: name for name in NAMES}, json.dumps(said)
