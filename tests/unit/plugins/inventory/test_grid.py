# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventory plugin beside static inventories, with and without a store, as Ansible reads it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._information.registration import orders
from ansible_collections.virtuoso.grid.plugins.module_utils._information.registration.changes import Registration
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store.database import Store

COLLECTIONS = Path(__file__).resolve().parents[4] / "build" / "collections"
CONFIGURATION = "plugin: virtuoso.grid.grid\nstore: state/grid.db\n"
HOSTS = """
all:
  vars: {ansible_port: 2222}
  children:
    providers:
      vars: {ansible_user: admin, virtuoso_site: elsewhere}
      hosts:
        provider1: {ansible_host: 198.18.0.99}
"""


def fill(directory):
    """A store with a running machine web1, a future web2, and provider1 that provides."""
    with Store(str(directory / "state" / "grid.db")).writing() as connection:
        entries = [{"name": name, "image": "tiny", "tags": ["a"]} for name in ("web1", "web2")]
        results = orders.serve(connection, entries, owner="alice", images=None, absent=False, check=False)[0]
        registration = Registration(connection)
        registration.see_hosts([{"name": "provider1", "site": "north", "address": "198.18.0.21", "user": "root"}])
        seen = {
            "name": "web1",
            "uuid": results[0]["uuid"],
            "state": "running",
            "provider": "provider1",
            "addresses": ["198.18.1.5"],
            "user": "debian",
        }
        registration.see_machines([seen])
        registration.write()


def run(program, *arguments, **environment):
    """Run one of Ansible's programs with the collection in its path."""
    return subprocess.run(
        [sys.executable, "-m", f"ansible.cli.{program}", *map(str, arguments)],
        env={
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
            "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "true",
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
    )


def plain(value):
    """What ansible-inventory printed, without its marks of what is unsafe."""
    if isinstance(value, dict):
        return (
            value["__ansible_unsafe"]
            if set(value) == {"__ansible_unsafe"}
            else {key: plain(item) for key, item in value.items()}
        )
    return [plain(item) for item in value] if isinstance(value, list) else value


def read(directory, **files):
    """What Ansible makes of a directory with these files."""
    for name, content in files.items():
        (directory / f"{name}.yml").write_text(content, encoding="utf-8")
    done = run("inventory", "-i", directory, "--list")
    assert done.returncode == 0, done.stderr
    return plain(json.loads(done.stdout))


def variables(inventory, name):
    """A host's variables, as they win."""
    return inventory["_meta"]["hostvars"].get(name, {})


def names(inventory, group):
    return sorted(inventory[group]["hosts"]) if group in inventory else None


@pytest.fixture
def place(tmp_path):
    """A directory with a filled store."""
    fill(tmp_path)
    (tmp_path / "inventory").mkdir()
    return tmp_path / "inventory"


IN_PLACE = CONFIGURATION.replace("state/", "../state/")


@pytest.mark.parametrize("plugins_name", ["grid", "zz-grid"])
def test_beside_a_static_inventory_that_one_says_how_providers_are_reached(place, plugins_name):
    inventory = read(place, **{plugins_name: IN_PLACE, "hosts": HOSTS})
    provider = variables(inventory, "provider1")
    assert (provider["ansible_host"], provider["ansible_port"], provider["ansible_user"]) == (
        "198.18.0.99",
        2222,
        "admin",
    )
    assert provider["virtuoso_site"] == "elsewhere" and provider["virtuoso_kind"] == "provider"
    machine = variables(inventory, "web1")
    assert (machine["ansible_host"], machine["ansible_port"], machine["ansible_user"]) == ("198.18.1.5", 22, "debian")
    assert (
        "-l root" in machine["ansible_ssh_common_args"]
        and "state/grid.db.known_hosts" in machine["ansible_ssh_common_args"]
    )
    assert names(inventory, "providers") == ["provider1"] and names(inventory, "machines") == ["web1"]
    assert names(inventory, "site_north") == ["provider1", "web1"]


def test_a_provider_that_no_other_inventory_names_gets_no_machines(place):
    inventory = read(place, grid=IN_PLACE)
    assert names(inventory, "providers") is None and "ansible_host" not in variables(inventory, "provider1")


def test_without_another_inventory_the_store_can_say_how_providers_are_reached(place):
    inventory = read(place, grid=IN_PLACE + "providers: true\n")
    provider = variables(inventory, "provider1")
    assert names(inventory, "providers") == ["provider1"]
    assert (provider["ansible_host"], provider["ansible_user"], provider["virtuoso_site"]) == (
        "198.18.0.21",
        "root",
        "north",
    )
    (place / "grid.yml").unlink()
    later = read(place, **{"zz-grid": IN_PLACE + "providers: true\n", "hosts": HOSTS})
    assert variables(later, "provider1")["ansible_host"] == "198.18.0.99"


@pytest.mark.parametrize("plugins_name", ["grid", "zz-grid"])
def test_a_static_host_is_not_taken_over_by_a_machine_of_its_name(place, plugins_name):
    hosts = "all: {hosts: {web1: {ansible_host: 198.18.0.50}}}"
    assert variables(read(place, **{plugins_name: IN_PLACE, "hosts": hosts}), "web1")["ansible_host"] == "198.18.0.50"


def test_a_static_host_without_an_address_is_not_taken_over_either(place):
    """It is reached by its name, as the DNS has it."""
    inventory = read(place, **{"zz-grid": IN_PLACE, "hosts": "webservers: {hosts: {web1: {}}}"})
    assert variables(inventory, "web1") == {} and names(inventory, "webservers") == ["web1"]
    assert names(inventory, "machines") is None


@pytest.mark.parametrize(
    ("include", "machines"),
    [("[existing]", ["web1"]), ("[future]", ["web2"]), ("[existing, future]", ["web1", "web2"])],
)
def test_include(place, include, machines):
    inventory = read(place, grid=IN_PLACE + f"include: {include}\n")
    assert names(inventory, "machines") == machines


def test_groups_and_variables_of_ones_own(place):
    own = (
        "compose: {twice: virtuoso_vcpus * 2}\n"
        "groups: {small: virtuoso_memory < 1024 ** 3}\n"
        "keyed_groups: [{key: virtuoso_network, prefix: net}]\n"
    )
    # The machine's size isn't known here, as nobody told it; the order's is.
    inventory = read(place, grid=IN_PLACE + "include: [future]\n" + own)
    assert variables(inventory, "web2")["twice"] == 2 and names(inventory, "small") == ["web2"] == names(
        inventory, "net_virtuoso"
    )


@pytest.mark.parametrize(
    ("options", "machines"),
    [
        ("where: [site == north]\n", ["web1"]),
        ("where: [site == south]\n", None),
        ("where: [memory >= 1 KiB, name like web%]\ninclude: [existing, future]\n", ["web1", "web2"]),
        ("scope: {near: provider1}\n", ["web1"]),
        ("where: [owner == bob]\n", None),
    ],
)
def test_only_machines_that_meet_conditions(place, options, machines):
    inventory = read(place, grid=IN_PLACE + options)
    assert names(inventory, "machines") == machines and names(inventory, "site_north")[0] == "provider1"


@pytest.mark.parametrize(
    "options",
    ["where: [colour == blue]\n", "scope: {near: nowhere}\n", "stale_after: soon\n", "where: [memory >= 1 parsec]\n"],
)
def test_a_bad_condition_is_an_error(place, options):
    (place / "grid.yml").write_text(IN_PLACE + options, encoding="utf-8")
    done = run("inventory", "-i", place, "--list")
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert any(word in done.stderr for word in ("no column", "no site or host", "not a time", "not a size"))


def test_stale_hosts_are_marked_and_not_dropped(place):
    inventory = read(place, grid=IN_PLACE + "include: [existing, future]\n")
    assert names(inventory, "stale") is None and variables(inventory, "web1")["virtuoso_stale"] is False
    with Store(str(place.parent / "state" / "grid.db")).writing() as connection:
        connection.exec_driver_sql("UPDATE host SET seen = '2020-01-01T00:00:00Z' WHERE seen IS NOT NULL")
    inventory = read(place, grid=IN_PLACE + "include: [existing, future]\n")
    assert (
        names(inventory, "stale") == ["provider1", "web1"] and variables(inventory, "web2")["virtuoso_stale"] is False
    )
    assert names(read(place, grid=IN_PLACE + "stale_after: 36500 d\n"), "stale") is None


def test_a_vanished_machine_is_marked_and_not_dropped(place):
    with Store(str(place.parent / "state" / "grid.db")).writing() as connection:
        registration = Registration(connection)
        assert [machine["name"] for machine in registration.see_all(["provider1"], [])["vanished"]] == ["web1"]
        registration.write()
    for options in ("", "where: [site == north]\n"):
        inventory = read(place, grid=IN_PLACE + options)
        assert names(inventory, "state_vanished") == ["web1"] and variables(inventory, "web1")["virtuoso_missing"]


def test_the_environment_names_the_store(place, monkeypatch):
    monkeypatch.setenv("VIRTUOSO_STORE", str(place.parent / "state" / "grid.db"))
    assert names(read(place, grid="plugin: virtuoso.grid.grid\n"), "machines") == ["web1"]


def test_without_a_store_there_is_a_warning_and_no_machine(tmp_path):
    (tmp_path / "grid.yml").write_text(CONFIGURATION, encoding="utf-8")
    done = run("inventory", "-i", tmp_path, "--list")
    assert (
        done.returncode == 0
        and "there is no store" in done.stderr
        and json.loads(done.stdout)["_meta"]["hostvars"] == {}
    )
    assert not (tmp_path / "state").exists()


def test_to_see_that_there_is_no_store_loads_no_library(tmp_path):
    (tmp_path / "grid.yml").write_text(CONFIGURATION, encoding="utf-8")
    (tmp_path / "sqlalchemy.py").write_text("raise SystemExit('loaded')", encoding="utf-8")
    done = run("inventory", "-i", tmp_path / "grid.yml", "--list", PYTHONPATH=str(tmp_path))
    assert done.returncode == 0 and "there is no store" in done.stderr


def test_a_broken_store_is_an_error(tmp_path):
    (tmp_path / "grid.yml").write_text(CONFIGURATION, encoding="utf-8")
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "grid.db").write_bytes(b"x" * 5000)
    done = run("inventory", "-i", tmp_path, "--list")
    assert done.returncode != 0 and "not an SQLite database" in done.stderr and "Traceback" not in done.stderr


def test_the_cache_holds_what_was_read(place):
    (place / "grid.yml").write_text(IN_PLACE, encoding="utf-8")
    cached = {
        "ANSIBLE_INVENTORY_CACHE": "true",
        "ANSIBLE_INVENTORY_CACHE_PLUGIN": "ansible.builtin.jsonfile",
        "ANSIBLE_INVENTORY_CACHE_CONNECTION": str(place.parent / "cache"),
    }
    first = run("inventory", "-i", place, "--list", **cached).stdout
    (place.parent / "state" / "grid.db").unlink()
    second = run("inventory", "-i", place, "--list", **cached).stdout
    assert first == second and "web1" in json.loads(second)["_meta"]["hostvars"]


def test_nothing_that_was_told_is_a_template(place):
    told = {"name": "web1", "provider": "provider1", "state": "running", "uuid": ""}
    with Store(str(place.parent / "state" / "grid.db")).writing() as connection:
        registration = Registration(connection)
        told["uuid"] = next(uuid for uuid, row in registration.machines.items() if row["name"] == "web1")
        registration.see_machines([told])
        registration.write()
        connection.exec_driver_sql(
            """UPDATE host SET facts = '{"mac": "{{ 6 * 7 }}", "addresses": ["{{ 6 * 7 }}"]}' WHERE name = 'web1'"""
        )
    (place / "grid.yml").write_text(IN_PLACE, encoding="utf-8")
    (place.parent / "show.yml").write_text(
        "- hosts: machines\n  gather_facts: false\n  tasks:\n"
        "    - debug: {msg: '[{{ virtuoso_mac }}] [{{ virtuoso_addresses[0] }}]'}\n",
        encoding="utf-8",
    )
    shown = run("playbook", "-i", place, place.parent / "show.yml").stdout
    assert "[{{ 6 * 7 }}] [{{ 6 * 7 }}]" in shown and "42" not in shown
