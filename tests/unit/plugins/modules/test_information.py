# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules of the information service as Ansible runs them, one after the other as a play does."""

from __future__ import annotations

import json

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store import schema
from ansible_collections.virtuoso.grid.plugins.modules import order, order_info, placement, registration

GIB = 2**30
IMAGE = {"name": "tiny@1", "digest": "sha256:" + "a" * 64, "size": GIB, "virtual_size": GIB}
FACTS = {
    **{"architecture": "x86_64", "cpus": 4, "memory": 8 * GIB, "disk": 99 * GIB, "machine_types": ["pc-q35-7.2"]},
    **{"memory_free": 8 * GIB, "disk_free": 99 * GIB, "memory_allocated": 0, "cpus_allocated": 0, "disk_allocated": 0},
}


@pytest.fixture
def run(tmp_path, capsys):
    """Runs a module on a store; returns what it returns, with its exit code as ``rc``."""

    def call(module, *, check=False, **options):
        with patch_module_args({"store": str(tmp_path / "grid.db"), "_ansible_check_mode": check, **options}):
            with pytest.raises(SystemExit) as ended:
                module.main()
        return {"rc": ended.value.code, **json.loads(capsys.readouterr().out)}

    return call


def test_a_machines_life(run):
    ordered = run(order, machines=[{"name": "web1", "image": "tiny"}], owner="alice", images=["tiny"])
    assert (ordered["rc"], ordered["changed"], len(ordered["diff"])) == (0, True, 1)
    machine = ordered["machines"][0]
    assert run(order, machines=[{"name": "web1", "image": "tiny"}], owner="alice")["changed"] is False

    demand = {**machine["spec"], "uuid": machine["uuid"], "image": IMAGE}
    placed = run(placement, machines=[demand], providers=[{"name": "p1", "site": "north", **FACTS}])
    assert (placed["changed"], placed["machine_type"], placed["machines"][0]["provider"]) == (True, "pc-q35-7.2", "p1")
    assert run(order_info, names=["web1"])["machines"][0]["state"] == "placed"

    hosts = [{"name": "p1", "site": "north", "address": "198.18.0.21", "facts": FACTS}]
    told = {"name": "web1", "uuid": machine["uuid"], "provider": "p1", "state": "running", "addresses": ["198.18.1.5"]}
    assert run(registration, providers=hosts, machines=[told])["changed"] is True
    assert run(registration, providers=hosts, machines=[told])["changed"] is False
    known = run(order_info, uuids=[machine["reference"]])["machines"][0]
    assert (known["state"], known["address"], known["provider"], known["site"]) == (
        "running",
        "198.18.1.5",
        "p1",
        "north",
    )

    assert run(order, machines=["web1"], state="absent")["machines"][0]["failure"]["code"] == "machine_exists"
    assert run(registration, gone=[machine["uuid"]])["changed"] is True
    assert run(order_info)["machines"] == []


def test_a_file_is_listed_without_the_database_library_and_is_the_same(run, monkeypatch):
    machines = [{"name": "web1", "image": "tiny"}, {"name": "db1", "image": "tiny"}]
    assert run(order, machines=machines, owner="alice")["rc"] == 0
    named = run(order_info, names=["web1", "db1"])["machines"]
    monkeypatch.setattr(order_info, "_queried", None)
    assert sorted(run(order_info)["machines"], key=lambda row: row["name"]) == sorted(
        named, key=lambda row: row["name"]
    )


def test_check_mode_makes_no_store(run, tmp_path):
    machines = [{"name": "web1", "image": "tiny", "owner": "alice"}]
    assert run(order, check=True, machines=machines)["changed"] is True
    assert run(order_info, check=True)["machines"] == []
    unplaced = [{"name": "web1", "uuid": None, "image": IMAGE, "memory": GIB}]
    assert (
        run(placement, check=True, machines=unplaced, providers=[{"name": "p1", "site": "north", **FACTS}])["changed"]
        is True
    )
    assert run(registration, check=True, providers=[{"name": "p1", "site": "north"}])["changed"] is True
    assert not list(tmp_path.iterdir())


def test_a_batch_with_a_bad_entry_fails_and_serves_the_others(run):
    result = run(
        order, machines=[{"name": "web1", "image": "tiny"}, {"name": "../web2", "image": "tiny"}], owner="alice"
    )
    assert (
        result["rc"] == 1
        and result["failed"]
        and result["failure"] == {"code": "some_failed", "codes": ["invalid_name"]}
    )
    assert [bool(machine.get("failed")) for machine in result["machines"]] == [False, True] and result["changed"]
    assert [machine["name"] for machine in run(order_info)["machines"]] == ["web1"]


@pytest.mark.parametrize(
    ("module", "options"),
    [
        (order, {"machines": []}),
        (order_info, {}),
        (placement, {"machines": [], "providers": []}),
        (registration, {}),
    ],
)
def test_errors_of_the_store_are_typed(run, tmp_path, monkeypatch, module, options):
    (tmp_path / "grid.db").write_bytes(b"x" * 5000)
    failed = run(module, **options)
    assert failed["rc"] == 1 and failed["failure"]["code"] == "store_corrupt" and failed["failure"]["host"]
    monkeypatch.setattr(schema, "SQLALCHEMY_ERROR", ImportError("No module named 'sqlalchemy'"))
    failed = run(module, **options)
    assert failed["failure"]["code"] == "library_missing" and "pip install" in failed["msg"]


@pytest.mark.parametrize(
    ("options", "code"), [({"cpu_overcommit": 0}, "invalid_cpu_overcommit"), ({"host_reserve": "lots"}, "invalid_size")]
)
def test_bad_bounds(run, options, code):
    assert run(placement, machines=[], providers=[], **options)["failure"]["code"] == code


def test_a_bad_provider_is_told(run):
    assert run(placement, machines=[], providers=["p1"])["failure"]["code"] == "invalid_provider"
