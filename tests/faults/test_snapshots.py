# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots under hostile names, by two plays at once, on a full file system; what the past brings back and what it
doesn't."""

from __future__ import annotations

import concurrent.futures
import json

import conftest
import pytest
from guests import codes, count, counted, only

pytestmark = pytest.mark.usefixtures("cleaned")

OFF = 2**20 + 2**19
"""Where tests write on the disk: behind what the guest boots from."""


@pytest.fixture(scope="module", name="provider", params=conftest.PROVIDERS)
def _provider(request):
    yield from conftest.provider_of(request.param)


@pytest.fixture(name="cleaned")
def _cleaned(provider):
    yield
    provider.shell(f"for place in $(grep -o '{provider.path}/[^ ]*' /proc/mounts); do umount $place; done")
    provider.wipe()


def directory(provider, machine):
    return f"{provider.path}/machines/{machine['uuid']}"


def left(provider, machine):
    """What there is beside the machine's disk and seed, and within its disk."""
    place = directory(provider, machine)
    names = set(provider.shell(f"find {place} {provider.path}/machines/.staging -mindepth 1 -printf '%f\\n'").split())
    told = json.loads(provider.shell(f"qemu-img info -U --output json {place}/disk.qcow2"))
    return names - {"disk.qcow2", "seed.iso"} | {each["name"] for each in told.get("snapshots") or ()}


@pytest.mark.parametrize(
    "name",
    ["../x", "a/b", "", ".", "..", ".x", "-x", "a b", "a\nb", "s\u00e9", "\u202ex", "x" * 64, "$(x)", "x;y", "<x>"],
)
def test_hostile_names_are_refused(provider, name):
    """Before anything is looked at: no machine is needed."""
    for state in ("present", "reverted", "absent"):
        said = provider.snapshot(["it-nobody"], state, snapshot=name)
        assert said["failed"] and said["failure"]["code"] == "invalid_snapshot", said


def test_names_that_are_allowed_and_what_the_disk_says_is_not_trusted(provider):
    machine = provider.machine("it-p", disk="4 MiB")
    provider.run([machine], "present")
    disk = f"{directory(provider, machine)}/disk.qcow2"
    write = "qemu-io -f qcow2 -c 'write -P {} {} 64k' {} >/dev/null"
    # The second is named like the first one's number within the disk.
    for number, name in enumerate(("x" * 63, "1", "s.save", "_")):
        provider.shell(write.format(number + 1, OFF, disk))
        assert codes(provider.snapshot(["it-p"], snapshot=name)) == [None]
        assert provider.snapshot(["it-p"], snapshot=name)["changed"] is False
    for number, name in enumerate(("x" * 63, "1", "s.save", "_")):
        assert codes(provider.snapshot(["it-p"], "reverted", snapshot=name)) == [None]
        provider.shell(f"qemu-io -f qcow2 -c 'read -P {number + 1} {OFF} 64k' {disk}")
    # Each stands by itself: the one in the middle goes, those after it stay.
    assert only(provider.snapshot(["it-p"], "absent", snapshot="1"))["snapshots"] == sorted(["x" * 63, "s.save", "_"])
    assert codes(provider.snapshot(["it-p"], "reverted", snapshot="_")) == [None]
    provider.shell(f"qemu-io -f qcow2 -c 'read -P 4 {OFF} 64k' {disk}")
    # Whoever writes the disk's file may write any name into it.
    provider.shell(
        f"mkdir {directory(provider, machine)}/snapshots; touch {directory(provider, machine)}/kept.save; "
        f"qemu-img snapshot -c ../kept {disk}"
    )
    assert not provider.snapshot(["it-p"], "absent", all=True)["machines"][0].get("failed")
    assert left(provider, machine) == {"kept.save"}


def test_a_machine_that_is_listed_twice(provider):
    machines = [provider.machine("it-c", "counting")]
    provider.run(machines)
    args = {"path": provider.path, "snapshot": "s", "machines": [{"name": "it-c"}, {"uuid": machines[0]["uuid"]}]}
    for check in (True, False):
        said = conftest.task(provider.host, "virtuoso.grid.machine_snapshot", args, check=check)
        assert sorted(codes(said), key=str) == [None, "duplicate_machine"]


def test_two_plays_at_once(provider):
    """One waits for the other, and finds it done; or says that the machine is busy, where it isn't given the time."""
    machine = provider.machine("it-c", "counting")
    provider.run([machine])
    counted(provider)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for state, names in (("present", ["a", "a", "b", "c"]), ("absent", ["a", "b", "b", "c"])):
            memory = {"memory": True} if state == "present" else {}
            done = list(
                pool.map(lambda name, s=state, m=memory: provider.snapshot(["it-c"], s, snapshot=name, **m), names)
            )
            assert [code for each in done for code in codes(each)] == [None] * 4
            assert sum(each["changed"] for each in done) == 3
            assert sorted(each["name"] for each in provider.info(["it-c"])[0]["snapshots"]) == (
                ["a", "b", "c"] if state == "present" else []
            )
    assert left(provider, machine) == set() and provider.info(["it-c"])[0]["state"] == "running"
    place = int(machine["uuid"].replace("-", "")[:15], 16)
    lock = f"import fcntl; f = open('{provider.path}/machines/.lock', 'ab'); fcntl.lockf(f, fcntl.LOCK_EX, 1, {place})"
    provider.shell(
        f'nohup python3 -c "{lock}; print(flush=True); import time; time.sleep(60)" >/tmp/it-lock 2>&1 & echo '
        f"$! >/tmp/it-lock.pid; "
        "for i in $(seq 100); do [ -s /tmp/it-lock ] && break; sleep 0.1; done"
    )
    assert codes(provider.snapshot(["it-c"], snapshot="a", timeout=1)) == ["machine_busy"]
    provider.shell("kill $(cat /tmp/it-lock.pid); rm /tmp/it-lock*")
    assert codes(provider.snapshot(["it-c"], snapshot="a", timeout=1)) == [None]


def test_a_full_file_system(provider):
    """Seen before, or in the middle of it: the guest runs on, and nothing of the snapshot is left."""
    machine = provider.machine("it-c", "counting")
    provider.run([machine])
    before = counted(provider)
    staging = f"{provider.path}/machines/.staging"
    provider.shell(f"mkdir -p {staging}; mount -t tmpfs -o size=64k tmpfs {staging}")
    assert codes(provider.snapshot(["it-c"], snapshot="s", memory=True)) == ["disk_full"]
    assert provider.info(["it-c"])[0]["state"] == "running" and counted(provider, before + 5) > before
    assert left(provider, machine) == set() and provider.info(["it-c"])[0]["snapshots"] == []
    # libvirtd has its own view of the file systems; there it is full for what libvirt writes.
    place, inside = f"{directory(provider, machine)}/snapshots", "nsenter --mount --target $(cat /run/libvirtd.pid)"
    provider.shell(f"umount {staging}; mkdir {place}; {inside} mount -t tmpfs -o size=64k tmpfs {place}")
    said = provider.snapshot(["it-c"], snapshot="s", memory=True)
    assert codes(said) == ["disk_full"] and provider.info(["it-c"])[0]["state"] == "running", said
    # What was mounted there is gone with its directory.
    assert left(provider, machine) == set()
    assert (
        codes(provider.snapshot(["it-c"], snapshot="s", memory=True))
        == codes(provider.snapshot(["it-c"], "reverted", snapshot="s"))
        == [None]
    )
    provider.snapshot(["it-c"], "absent", all=True)
    assert left(provider, machine) == set()


def test_the_past_does_not_bring_old_limits_back(provider):
    """With its memory a guest goes on as it was then; what it may use is what is ordered today."""
    machine = provider.machine(
        "it-c", "counting", performance={"cpu_shares": 300, "disk_io": {"read_iops": 100}}, display="vnc"
    )
    old, new = ({machine["uuid"]: each} for each in ("old", "new"))
    provider.run([machine], display_passwords=old)
    counted(provider)
    # It stands still, so that what it has counted is known.
    provider.run([{"name": "it-c"}], "paused")
    assert codes(provider.snapshot(["it-c"], snapshot="s", memory=True)) == [None]
    before = count(provider)
    wanted = [
        {
            **machine,
            "description": "of today",
            "performance": {"cpu_shares": 50, "reservation": {"period": "100 ms", "slice": "50 ms"}},
        }
    ]
    provider.run(wanted, display_passwords=new)
    counted(provider, before + 40)
    # It ran on for the instant that it takes to keep its memory.
    assert (
        only(provider.snapshot(["it-c"], "reverted", snapshot="s"))["state"] == "paused" and count(provider) <= before
    )
    again = only(provider.run(wanted, "paused", display_passwords=new))
    assert not again["changed"] and not again["pending"], again
    told = provider.shell(
        "virsh schedinfo it-c; virsh blkdeviotune it-c vda; virsh desc it-c; virsh dumpxml --security-info it-c "
        "| grep -e passwd -e shares"
    )
    assert (
        "of today" in told
        and "passwd='new'" in told
        and [line.split()[-1] for line in told.splitlines() if "read_iops_sec " in line] == ["0"]
    )
    # libvirt has systemd write the shares, which can't in a container of the lab.
    assert "<shares>50</shares>" in told and [
        line.split()[-1] for line in told.splitlines() if line.startswith("vcpu_quota")
    ] == ["50000"]


def test_it_starts_with_its_provider_again_after_it_slept(provider):
    """Set by hand, or ordered: off while it sleeps, on again once its memory is used or given up."""
    machine = provider.machine("it-c", "counting")

    def starts():
        return "enable" in provider.shell("virsh dominfo it-c | grep Autostart")

    provider.run([machine])
    counted(provider)
    provider.shell("virsh -q autostart it-c")
    assert codes(provider.snapshot(["it-c"], snapshot="s")) == [None]
    ways = (
        lambda: provider.run([machine]),
        lambda: provider.run([{"name": "it-c"}], "paused"),
        lambda: provider.run([{"name": "it-c"}], "running", discard=True),
        lambda: provider.snapshot(["it-c"], "reverted", snapshot="s"),
    )
    for wake in ways:
        assert codes(provider.run([machine])) == [None] and starts()
        assert codes(provider.run([{"name": "it-c"}], "hibernated")) == [None] and not starts()
        assert provider.run([machine], "hibernated")["changed"] is False and not starts()
        assert codes(wake()) == [None] and starts()
    provider.run([machine])
    provider.shell("virsh -q autostart --disable it-c")
    assert [codes(provider.run([machine], state)) for state in ("hibernated", "running")] == [
        [None]
    ] * 2 and not starts()
    # What is ordered while it sleeps
    provider.run([machine], "hibernated")
    asleep = only(provider.run([{**machine, "autostart": True}], "hibernated"))
    assert (
        asleep["changed"]
        and not starts()
        and provider.run([{**machine, "autostart": True}], "hibernated")["changed"] is False
    )
    assert codes(provider.run([{"name": "it-c"}])) == [None] and starts()
