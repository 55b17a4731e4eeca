# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The life of machines on the lab's providers: hibernated and resumed, paused, rebooted, reset; bad memories refused.

A guest of one sector counts in its memory, where the test reads it through QEMU: what it counted is there after it was
resumed, and begins anew after a reset.
"""

from __future__ import annotations

import time

import pytest
from guests import codes, count, counted, foretold, only

pytestmark = pytest.mark.usefixtures("cleaned")


def step(provider, wanted, state, actions, end, repeat=True, **options):
    """Bring a machine to a state: check mode foretells it, and a second time changes nothing."""
    said = provider.run(wanted, state, check=True, **options)
    done = provider.run(wanted, state, **options)
    assert foretold(said) == foretold(done), done
    assert (only(done)["actions"], only(done)["state"], codes(done)) == (actions, end, [None]), done
    if repeat:
        again = only(provider.run(wanted, state, **options))
        assert (again["changed"], again["state"]) == (False, end), again
    return only(done)


def test_a_hibernated_machine_goes_on_where_it_was(newer_provider):
    provider = newer_provider
    wanted = [provider.machine("it-c", "counting")]
    provider.run(wanted)
    before = counted(provider)
    step(provider, wanted, "hibernated", ["hibernate"], "hibernated")
    (facts,) = provider.info(["it-c"])
    assert (
        facts["state"] == "hibernated"
        and facts["memory_file"]["size"] > 2**16
        and facts["memory_file"]["path"].endswith("/memory.zst")
    )
    directory = f"{provider.path}/machines/{wanted[0]['uuid']}"
    assert provider.shell(f"ls {directory}; ls {directory}/../.staging").split() == [
        "disk.qcow2",
        "memory.zst",
        "seed.iso",
    ]
    assert only(provider.run(wanted, "present"))["state"] == "hibernated"
    named = [{"name": "it-c"}]
    step(provider, named, "running", ["wake"], "running")
    after = count(provider)
    assert before <= after < before + 18 * 60, "the memory is another one"
    assert counted(provider, after + 5) > after, "it stands still"
    assert provider.shell(f"ls {directory}").split() == ["disk.qcow2", "seed.iso"]

    step(provider, named, "paused", ["pause"], "paused")
    step(provider, named, "hibernated", ["hibernate"], "hibernated")
    step(provider, named, "paused", ["wake", "pause"], "paused")
    assert count(provider) == count(provider) >= after
    step(provider, named, "running", ["resume"], "running")
    step(provider, named, "reset", ["reset"], "running", repeat=False)
    assert count(provider) < after


def test_a_memory_that_does_not_fit_is_refused_before_anything_is_touched(provider):
    wanted = [provider.machine("it-c", "counting"), provider.machine("it-d", "counting")]
    provider.run(wanted)
    counted(provider)
    provider.run(wanted, "hibernated")
    mine, other = (f"{provider.path}/machines/{each['uuid']}" for each in wanted)

    def refused(code):
        for check in (True, False):
            assert codes(provider.run(wanted[:1], "running", check=check)) == [code]
        assert provider.info(["it-c"])[0]["state"] == "hibernated"

    provider.shell(f"cp -p {mine}/memory.zst {mine}/../kept; cp {other}/memory.zst {mine}/memory.zst")
    refused("hibernation_foreign")
    provider.shell(f"cp -p {mine}/../kept {mine}/memory.zst; truncate -s -1 {mine}/memory.zst")
    refused("hibernation_invalid")
    provider.shell(f"cp -p {mine}/../kept {mine}/memory.zst; touch {mine}/disk.qcow2")
    refused("hibernation_stale")
    # Damage of the stream is seen when it is unpacked: the machine is still hibernated then.
    grown = provider.run([{**wanted[0], "disk": "5 MiB"}], "present", check=True)
    assert codes(grown) == ["machine_hibernated"]
    step(provider, wanted[:1], "running", ["discard memory", "start"], "running", discard=True)
    assert provider.shell(f"ls {mine}").split() == ["disk.qcow2", "seed.iso"]

    provider.shell(f"printf XXXX | dd of={other}/memory.zst bs=1 seek=70000 conv=notrunc status=none")
    assert codes(provider.run(wanted[1:], "running")) == ["hibernation_invalid"]
    assert (
        provider.info(["it-d"])[0]["state"] == "hibernated"
        and provider.shell(f"ls {provider.path}/machines/.staging") == ""
    )
    assert provider.run(wanted[1:], "absent")["changed"]


@pytest.mark.each
def test_what_a_killed_run_left(provider):
    """After libvirt saved the memory, before it was compressed; and after it was restored, before the guest ran."""
    wanted = [provider.machine("it-c", "counting")]
    provider.run(wanted)
    before = counted(provider)
    directory = f"{provider.path}/machines/{wanted[0]['uuid']}"
    provider.shell(f"virsh save it-c {directory}/memory.save")
    assert provider.info(["it-c"])[0]["state"] == "hibernated"
    step(provider, wanted, "hibernated", ["compress memory"], "hibernated")
    provider.shell(
        f"zstd -q -d {directory}/memory.zst -o /tmp/it-c.save && virsh restore --paused /tmp/it-c.save; rm "
        f"/tmp/it-c.save"
    )
    step(provider, wanted, "running", ["resume"], "running")
    assert count(provider) >= before and provider.shell(f"ls {directory}").split() == ["disk.qcow2", "seed.iso"]
    provider.shell(f"virsh save it-c {directory}/memory.save")
    step(provider, wanted, "running", ["wake"], "running")
    assert count(provider) >= before


@pytest.mark.each
def test_a_guest_that_does_not_reboot(provider):
    wanted = [provider.machine("it-c", "counting"), {"name": "it-nobody"}]
    provider.run(wanted[:1])
    before = counted(provider)
    assert codes(provider.run(wanted, "rebooted", timeout=3)) == ["reboot_refused", "machine_unknown"]
    # So much that it can't have been reached again when it is looked at after the reset
    before = counted(provider, max(before + 1, 300))
    forced = only(provider.run(wanted[:1], "rebooted", timeout=2, force=True))
    assert forced["changed"] and forced["actions"] == ["reboot"] and count(provider) < before


def test_a_guest_that_reboots(provider):
    wanted = [provider.machine("it-p")]
    provider.run(wanted)
    process = provider.shell("cat /run/libvirt/qemu/it-p.pid")
    done = only(provider.run(wanted, "rebooted"))
    assert (done["actions"], done["state"]) == (["reboot"], "running")
    assert provider.shell("cat /run/libvirt/qemu/it-p.pid") == process


def test_resources_are_limited_while_it_runs_and_shown(older_provider):
    provider = older_provider
    wanted = [provider.machine("it-r", "reading")]
    provider.run(wanted)
    limits = {"read_bytes": 2**20, "write_iops": 100}
    changed = [{**wanted[0], "performance": {"disk_io": {"read_bytes": "1 MiB", "write_iops": 100}}}]
    step(provider, changed, "running", ["change disk_io live", "change wishes live"], "running")
    told = provider.shell("virsh blkdeviotune it-r vda --live; virsh blkdeviotune it-r vda --config")
    assert [
        line.split()[-1] for line in told.splitlines() if line.startswith(("read_bytes_sec ", "write_iops_sec "))
    ] == ["1048576", "100"] * 2
    before, begin = read_bytes(provider), time.monotonic()
    facts = provider.info(["it-r"], usage_window=2)[0]
    seconds = time.monotonic() - begin
    got = (read_bytes(provider) - before) / (time.monotonic() - begin)
    assert got < 1.5 * 2**20, f"{got:.0f} bytes a second over {seconds:.1f} s"
    assert (
        facts["disk_io"] == limits == facts["given"]["disk_io"] == facts["ordered"]["disk_io"]
        and facts["usage"]["cpu_ceiling"] == 100.0
    )
    assert 0 < facts["usage"]["disk"]["read"] < 1.5 * 2**20 and facts["usage"]["disk"]["write"] == 0
    assert 2 <= facts["usage"]["window"] < 20 and facts["usage"]["cpu"] > 0
    step(provider, wanted, "running", ["change disk_io live", "change wishes live"], "running")
    assert provider.info(["it-r"])[0]["disk_io"] is None


def read_bytes(provider):
    """What the guest has read of its disk."""
    said = provider.shell("virsh domblkstat it-r vda")
    return int(next(line.split()[2] for line in said.splitlines() if " rd_bytes " in line))


def test_it_changes_while_it_runs_and_keeps_that_over_sleep_and_snapshots(newer_provider):
    """Processors and a card are plugged in; asleep, and in a snapshot's memory, they are kept."""
    provider = newer_provider
    plain = provider.machine("it-c", "counting")
    provider.run([plain])
    counted(provider)
    more = {
        **plain,
        "vcpus": 2,
        "extra_networks": ["virtuoso"],
        "description": "a <web>",
        "autostart": True,
        "boot": ["network", "disk"],
    }
    changed = (
        "vcpus live",
        "extra_networks live",
        "boot at next start",
        "description live",
        "autostart live",
        "wishes live",
    )
    done = step(provider, [more], "running", [f"change {each}" for each in changed], "running")
    assert (
        done["pending"] == {"boot": [["disk"], ["network", "disk"]]}
        and [change["when"] for change in done["changes"]].count("next start") == 1
    )
    told = provider.shell("virsh vcpucount it-c --current; virsh domiflist it-c; virsh desc it-c; virsh dominfo it-c")
    assert (
        told.startswith("2\n")
        and told.count(" network ") == 2
        and "a <web>" in told
        and "Autostart:      enable" in told
    )

    # Paused, so that what it has counted is known.
    provider.run([more], "paused")
    before = count(provider)
    taken = provider.snapshot(["it-c"], snapshot="s", memory=True)
    assert (only(taken)["actions"], only(taken)["state"], only(taken)["consistent"]) == (
        ["take s"],
        "paused",
        "memory",
    ), taken
    assert only(provider.run([more], "hibernated"))["state"] == "hibernated"
    assert "Autostart:      disable" in provider.shell("virsh dominfo it-c")
    assert only(provider.run([more]))["actions"] == ["wake"]
    assert "Autostart:      enable" in provider.shell("virsh dominfo it-c")
    counted(provider, before + 5)
    back = provider.snapshot(["it-c"], "reverted", snapshot="s")
    assert (only(back)["state"], count(provider)) == ("paused", before), back
    assert provider.shell("virsh vcpucount it-c --current; virsh domiflist it-c").count(" network ") == 2
    assert only(provider.snapshot(["it-c"], snapshot="s", memory=True))["changed"] is False
    assert only(provider.run([more]))["actions"] == ["resume"]
    gone = only(provider.snapshot(["it-c"], "absent", all=True))
    assert (gone["actions"], gone["snapshots"], only(provider.run([more]))["actions"]) == (["drop s"], [], [])
