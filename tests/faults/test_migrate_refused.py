# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can't go is refused with its reason before anything is touched, by the target's own eyes too; and a step that is
repeated changes nothing."""

from __future__ import annotations

import typing as t
import uuid

import pytest
from conftest import task
from moving import SEND, Bed, other
from walking import DEPOT, PROVIDERS, Grid, Row, machine_files, on_host, until

MODULE = "virtuoso.grid.machine_migrate"


@pytest.fixture(scope="module", name="bed")
def _bed() -> t.Iterator[Bed]:
    grid = Grid("it-refused", machine={"memory": "96 MiB", "display": "none"})
    try:
        machines = grid.machines(2)
        grid.play(
            "deploy", "--limit", PROVIDERS[0], machines=machines, virtuoso_screenshots=False, virtuoso_address_timeout=0
        ).succeeded()
        yield Bed(grid, grid.names(1)[0])
    finally:
        grid.clean()


def look(host: str, *machines: Row) -> Row:
    return task(host, MODULE, {"step": "look", "facts": True, "machines": list(machines)})


@pytest.fixture(scope="module", name="entry")
def _entry(bed: Bed) -> Row:
    """The machine as the role would send it to the target's step prepare."""
    (view,) = look(bed.place[0], {"uuid": bed.uuid, "name": bed.name})["machines"]
    return {
        **view,
        "mode": "live",
        "source": bed.place[0],
        "generation": view["generation"] + 1,
        "attempt": "it",
        "memory_file": 0,
    }


BAD = {
    "no_memory": {"memory": 10**15},
    "no_disk": {"disk_used": 10**15},
    "network_missing": {"network": "nowhere"},
    "image_missing": {"layers": ["sha256:" + "0" * 64]},
    "machine_type_missing": {"machine_type": "pc-q35-99.0"},
    "virtualization_missing": {"virtualization": "kvm"},
    "has_snapshots": {"snapshots": 1},
    "device_tied": {"tied": ["a device of the host (hostdev usb)"]},
    "machine_pages": {"pages": {"host": "h"}},
    "disk_missing": {"disk": None},
    "wrong_state": {"state": "stopped"},
}


def test_the_target_refuses_with_its_own_eyes(bed: Bed, entry: Row):
    target = other(bed.place[0])
    before = machine_files(target)
    entries = [
        {**entry, "uuid": str(uuid.uuid4()), "name": f"it-refused-{number}", **changes}
        for number, changes in enumerate(BAD.values(), 10)
    ]
    rows = task(target, MODULE, {"step": "prepare", "name": target, "machines": entries})["machines"]
    assert [row["failure"]["code"] for row in rows] == list(BAD)
    assert all(row["failure"]["remedy"] for row in rows)
    assert machine_files(target) == before


def test_a_domain_that_is_not_the_grid_s_is_left_alone(bed: Bed, entry: Row):
    source, target = bed.place[0], other(bed.place[0])
    xml = f"<domain type='qemu'><name>{bed.name}</name><memory>1024</memory><os><type>hvm</type></os></domain>"
    on_host(target, f'echo "{xml}" > /run/it-foreign.xml && virsh define /run/it-foreign.xml')
    try:
        run = bed.grid.play("migrate", "-e", f"machines={bed.name}", "-e", f"to={target}")
        assert run.code(bed.name) == "foreign_domain"
        (row,) = task(target, MODULE, {"step": "prepare", "name": target, "machines": [entry]}, check=True)["machines"]
        assert row["failure"]["code"] == "foreign_domain"
        (row,) = task(target, MODULE, {"step": "look", "machines": [{"name": bed.name}]})["machines"]
        assert row["failure"]["code"] == "foreign_domain"
        assert "shut off" in on_host(target, f"virsh domstate {bed.name}")
    finally:
        on_host(target, f"virsh undefine {bed.name}")
    assert bed.whole(source) == "running"


def test_one_that_is_on_its_way_is_not_moved_by_another_run(bed: Bed):
    """The second waits for the first, and finds the machine where that has brought it, or says that it is busy."""
    source = bed.place[0]
    target = other(source)
    first = bed.grid.start(
        "migrate", "-v", "-e", f"machines={bed.name}", "-e", f"to={target}", virtuoso_migrate_bandwidth="2 MiB"
    )
    assert first.wait_for_text(f": {SEND}: {bed.name}", 60)
    until("the mark", lambda: "moving" in on_host(source, f"virsh dumpxml --inactive {bed.name}", check=False), 20, 0.1)
    args = {"state": "stopped", "timeout": 5, "machines": [{"uuid": bed.uuid, "name": bed.name}]}
    touched = task(source, "virtuoso.grid.machine", args)["machines"][0]
    second = bed.grid.play("migrate", "-e", f"machines={bed.name}", "-e", f"to={target}")
    first.wait().succeeded()
    assert touched["failed"] and touched["failure"]["code"] in ("machine_busy", "stale_generation"), touched
    assert second.returncode == 0 or second.code(bed.name) == "machine_busy", second.story()
    assert bed.whole(target) == "running"
    assert bed.grid.rows("SELECT generation FROM host WHERE name = ?", bed.name)[0]["generation"] == 2


def test_a_step_that_is_repeated_changes_nothing(bed: Bed):
    here = bed.place[0]
    entry = {"uuid": bed.uuid, "name": bed.name, "generation": 99}
    for host, action in ((here, "restore"), (here, "finish"), (other(here), "release"), (other(here), "discard")):
        result = task(host, MODULE, {"step": "settle", "machines": [{**entry, "action": action}]})
        assert result["changed"] is False and not result.get("failed"), (action, result)
    # Neither does one that would throw the true copy away.
    for action, code in (("release", "not_released"), ("discard", "machine_here")):
        (row,) = task(here, MODULE, {"step": "settle", "machines": [{**entry, "action": action}]})["machines"]
        assert row["failure"]["code"] == code
    same = bed.grid.play("migrate", "-e", f"machines={bed.name}", "-e", f"to={here}").succeeded()
    assert not any(same.changed.values()) and same.row(bed.name)["provider"] == here
    assert bed.whole(here) == "running"


def test_a_memory_that_is_damaged_or_another_s_does_not_travel(bed: Bed):
    name = bed.grid.names(2)[1]
    ours, theirs = (bed.grid.uuids()[each] for each in (bed.name, name))
    here = bed.place[0]
    target = other(here)
    if bed.grid.domains()[name][0][0] != here:
        bed.grid.play("migrate", "-e", f"machines={name}", "-e", f"to={here}").succeeded()
    bed.grid.play("power", "-e", f"machines={bed.name},{name}", "-e", "state=hibernated").succeeded()
    memory, other_s = (f"{DEPOT}/machines/{each}/memory.zst" for each in (ours, theirs))
    on_host(here, f"cp {memory} /root/it-memory")
    words = ("-e", f"machines={bed.name}", "-e", f"to={target}")
    cut_off = f"cp /root/it-memory {memory}; truncate -s -1000 {memory}"
    for damage, code in ((f"cp {other_s} {memory}", "hibernation_foreign"), (cut_off, "hibernation_invalid")):
        on_host(here, damage)
        assert bed.grid.play("migrate", *words).code(bed.name) == code
        assert bed.uuid not in machine_files(target)
    on_host(here, f"mv /root/it-memory {memory}")
    bed.grid.play("migrate", *words).succeeded()
    assert bed.whole(target) == "running"
    assert bed.grid.domains()[name] == [(here, "shut off")]
