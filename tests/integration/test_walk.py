# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The main job from order to retirement, by the playbooks, on the lab's two providers."""

from __future__ import annotations

import json
import re
import time

import pytest
from walking import DEPOT, PROVIDERS, Grid, Row, machine_files, on_host, staged_images

MIB = 2**20


@pytest.fixture(scope="module")
def grid(make_grid) -> Grid:
    return make_grid("it-walk")


def two_machines(grid: Grid) -> list[Row]:
    """With wishes, so that there is something to be rebuilt: apart, one at a site, both with a reservation."""
    reservation = {"period": "100 ms", "slice": "80 ms"}
    machines = grid.machines(2, tags=["walk"], anti_affinity=["tag:walk"], performance={"reservation": reservation})
    machines[0]["site"] = "site-b"
    return machines


def memory_of(provider: str, name: str) -> int:
    """The memory that a guest has now, in bytes, as libvirt says."""
    return int(re.search(r"Used memory:\s+(\d+) KiB", on_host(provider, f"virsh dominfo {name}")).group(1)) * 1024


def test_from_order_to_running_machines_as_check_mode_said(grid: Grid):
    names, machines = grid.names(2), two_machines(grid)

    foretold = grid.play("deploy", "--check", "--diff", machines=machines).succeeded()
    assert not grid.store.exists(), "check mode made a store"
    assert grid.domains() == {}
    for name in names:
        assert {"order", "place", "create disk", "define", "start"} <= set(foretold.row(name)["actions"])
    telling = [foretold.results(task).values() for task in ("Order the machines", "Define and start the machines")]
    diffs = [result["diff"] for results in telling for result in results if result.get("diff")]
    assert all(name in str(diffs) for name in names)

    real = grid.play("deploy", machines=machines).succeeded()
    assert real.actions() == foretold.actions()
    grid.running_once(names)
    for name in names:
        row = real.row(name)
        assert row["state"] == "running" and row["reference"] == f"urn:uuid:{row['uuid']}"
        assert row["addresses"] and row["display"]["host"] == "127.0.0.1"
        with open(row["screenshot"]["path"], "rb") as picture:
            assert picture.read(8) == b"\x89PNG\r\n\x1a\n"
    assert {real.row(name)["provider"] for name in names} == set(PROVIDERS)
    assert {str(row["address"]) for row in grid.rows("SELECT address FROM host WHERE kind = 'machine'")} == {
        real.row(name)["addresses"][0] for name in names
    }

    again = grid.play("deploy", machines=machines).succeeded()
    assert not any(again.changed.values()), again.story()
    assert again.actions() == set()


def test_more_memory_is_kept_for_the_next_start(grid: Grid):
    name, other = grid.names(2)
    machines = two_machines(grid)
    machines[0]["memory"] = "96 MiB"

    foretold = grid.play("deploy", "--check", "--diff", machines=machines).succeeded()
    changed = grid.play("deploy", machines=machines).succeeded()
    for run in (foretold, changed):
        assert run.row(name)["restart_required"] is True
        assert run.row(name)["pending"]["memory"] == [80 * MIB, 96 * MIB]
        assert not run.row(other).get("restart_required")
    assert changed.actions() == foretold.actions() != set()
    provider = changed.row(name)["provider"]
    assert memory_of(provider, name) == 80 * MIB
    assert "restart required" in "\n".join(changed.report["table"])

    again = grid.play("deploy", machines=machines).succeeded()
    assert not any(again.changed.values())
    assert again.row(name)["restart_required"] is True

    # by the machine's name as a limit, then by a variable
    stopped = grid.play("power", "--limit", name, "-e", "state=stopped").succeeded()
    assert stopped.row(name)["state"] == "stopped"
    assert {found: places[0][1] for found, places in grid.domains().items()} == {name: "shut off", other: "running"}
    started = grid.play("power", "-e", f"machines={name}", "-e", "state=running").succeeded()
    assert started.row(name)["state"] == "running"
    assert memory_of(provider, name) == 96 * MIB
    after = grid.play("deploy", machines=machines).succeeded()
    assert not after.row(name).get("restart_required")
    assert not any(after.changed.values())


FOREIGN = """
    virsh define /dev/stdin <<END
    <domain type='qemu'><name>it-walk-foreign</name><memory unit='MiB'>16</memory>
    <os><type arch='x86_64'>hvm</type></os></domain>
END
"""


def test_a_lost_store_is_rebuilt_from_what_runs(grid: Grid):
    names, machines = grid.names(2), two_machines(grid)
    for machine, row in zip(machines, grid.rows("SELECT memory FROM host WHERE kind = 'machine' ORDER BY name")):
        machine["memory"] = str(row["memory"])
    told = (
        "SELECT uuid, name, state, cpus, memory, disk, address, generation FROM host WHERE kind = 'machine' "
        "ORDER BY name"
    )
    reserved = "SELECT machine, provider, cpu_period_us, cpu_slice_us, memory FROM reservation ORDER BY machine"
    on = (
        "SELECT m.name AS machine, p.name AS provider FROM virtualization v JOIN host m ON m.uuid = v.virtual "
        "JOIN host p ON p.uuid = v.constituent WHERE v.role = 'provider' ORDER BY m.name"
    )
    specs = "SELECT uuid, owner, spec FROM orders ORDER BY uuid"
    before = [grid.rows(statement) for statement in (told, on)]
    wishes = {row["uuid"]: json.loads(row["spec"]) for row in grid.rows(specs)}
    slots = [{key: value for key, value in row.items() if key != "provider"} for row in grid.rows(reserved)]
    on_host("provider1", FOREIGN)
    for file in grid.directory.glob("grid.db*"):
        file.unlink()

    foretold = grid.play("refresh", "--check").succeeded()
    assert not grid.store.exists()
    rebuilt = grid.play("refresh", virtuoso_refresh_latency=False).succeeded()
    for name in names:
        assert foretold.row(name)["actions"] == rebuilt.row(name)["actions"] == ["rebuild"]
    assert rebuilt.row("it-walk-foreign")["actions"] == ["appear"]
    assert [grid.rows(statement) for statement in (told, on)] == before
    again = {row["uuid"]: json.loads(row["spec"]) for row in grid.rows(specs)}
    for uuid, spec in wishes.items():
        # The image by its version and the disk by its size: that is how the machine was made.
        assert {**again[uuid], "image": None, "disk": None} == {**spec, "image": None, "disk": None}
    assert [{key: value for key, value in row.items() if key != "provider"} for row in grid.rows(reserved)] == slots

    quiet = grid.play("refresh", virtuoso_refresh_latency=False).succeeded()
    assert not any(quiet.changed.values()), quiet.story()
    after = grid.play("deploy", machines=machines).succeeded()
    assert (after.actions(), any(after.changed.values())) == (set(), False)

    on_host("provider1", "virsh undefine it-walk-foreign")
    gone = grid.play("refresh", virtuoso_refresh_latency=False).succeeded()
    assert gone.row("it-walk-foreign")["actions"] == ["vanish"]
    assert {
        row["missing"] is None for row in grid.rows("SELECT missing FROM foreign_domain WHERE name = 'it-walk-foreign'")
    } == {False}


def test_power_and_retire_refuse_to_guess(grid: Grid):
    for playbook, variables in (("power", ["-e", "state=stopped"]), ("retire", [])):
        run = grid.play(playbook, *variables)
        assert run.returncode != 0
        assert "Say which machines" in run.story()
        run = grid.play(playbook, *variables, "-e", "machines=it-walk-1,nobody")
        assert run.returncode != 0
        assert "No such machine: nobody" in run.story()
    grid.running_once(grid.names(2))


def test_retire_leaves_nothing(grid: Grid):
    names, uuids = grid.names(2), grid.uuids()
    assert sorted(path.stem for path in grid.screenshots.iterdir()) == sorted(uuids.values())

    one = grid.play("retire", "--limit", names[0]).succeeded()
    assert one.row(names[0])["state"] == "absent"
    grid.running_once(names[1:])
    grid.play("retire", "-e", "machines=all").succeeded()

    assert grid.domains() == {}
    for provider in PROVIDERS:
        left = machine_files(provider)
        assert not [entry for entry in left for uuid in uuids.values() if uuid in entry]
    for (table,) in [tuple(row.values()) for row in grid.rows("SELECT name FROM sqlite_master WHERE type = 'table'")]:
        text = repr(grid.rows(f"SELECT * FROM {table}"))
        assert not [value for value in (*names, *uuids.values()) if value in text], f"{table}: {text}"
    assert list(grid.screenshots.iterdir()) == []


def test_an_order_by_survey_is_a_future_until_it_is_cancelled(grid: Grid):
    survey = {
        "virtuoso_machine_name": "it-walk-7",
        "virtuoso_machine_image": "tiny",
        "virtuoso_machine_memory": "80 MiB",
    }
    ordered = grid.play("order", **survey).succeeded()
    row = ordered.row("it-walk-7")
    assert row["state"] == "future" and row["reference"].startswith("urn:uuid:")
    assert (row["spec"]["image"], row["spec"]["memory"], row["spec"]["owner"]) == ("tiny", 80 * MIB, "tester")
    assert grid.domains() == {}

    survey["virtuoso_machine_memory"] = "96 MiB"
    changed = grid.play("order", **survey).succeeded()
    assert (changed.row("it-walk-7")["actions"], changed.row("it-walk-7")["uuid"]) == (["change"], row["uuid"])

    cancelled = grid.play("order", virtuoso_order_state="absent", **survey).succeeded()
    assert cancelled.row("it-walk-7")["actions"] == ["cancel"]
    assert grid.uuids() == {}

    # the other way to be rid of a future
    grid.play("order", **survey).succeeded()
    grid.play("retire", "-e", "machines=it-walk-7").succeeded()
    assert grid.uuids() == {}


def test_twenty_machines_of_one_list_run_on_both_providers(make_grid):
    many = make_grid("it-many", machine={"memory": "80 MiB", "display": "none"})
    begin = time.monotonic()
    # ten guests at once on each host, without KVM: their boots share two cores, some ten seconds of processor time each
    run = many.start("deploy", machines=many.machines(20), virtuoso_address_timeout=400).wait(600).succeeded()
    seconds = time.monotonic() - begin
    many.running_once(many.names(20))
    providers = [run.row(name)["provider"] for name in many.names(20)]
    assert set(providers) == set(PROVIDERS)
    assert all(run.row(name)["addresses"] for name in many.names(20))
    print(f"20 machines in {seconds:.0f} s, {providers.count(PROVIDERS[0])} on {PROVIDERS[0]}")

    many.play("retire", "-e", "machines=all").succeeded()
    assert many.domains() == {}
    assert many.uuids() == {}
    assert all(not staged_images(provider) for provider in PROVIDERS)
    assert all(
        "No such file" in on_host(provider, f"ls {DEPOT}/machines/it-many-1 2>&1", check=False)
        for provider in PROVIDERS
    )
