# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes that a guest refuses, snapshots with all that can go wrong: on guests of one sector."""

from __future__ import annotations

import concurrent.futures
import json
import time

import conftest
import pytest
from guests import codes, count, counted, foretold, only
from test_versions import Bench

pytestmark = pytest.mark.usefixtures("cleaned")


@pytest.fixture(scope="module", name="provider", params=conftest.PROVIDERS)
def _provider(request):
    yield from conftest.provider_of(request.param)


@pytest.fixture(name="cleaned")
def _cleaned(provider):
    yield
    provider.wipe()


def test_snapshots(provider):
    wanted = [provider.machine("it-c", "counting", disk="4 MiB"), provider.machine("it-p")]
    names = ["it-c", "it-p"]
    provider.run(wanted[:1])
    provider.run(wanted[1:], "present")
    said, done, again = (
        provider.snapshot(names, snapshot="s", description="all", check=check) for check in (True, False, False)
    )
    assert (
        foretold(said) == foretold(done)
        and [machine["actions"] for machine in done["machines"]] == [["take s"]] * 2
        and said["diff"]
    )
    assert [machine["consistent"] for machine in done["machines"]] == ["crash", "stopped"] and again["changed"] is False
    shown = provider.info(names)
    assert [
        [(each["name"], each["description"], each["memory"]) for each in machine["snapshots"]] for machine in shown
    ] == [[("s", "all", False)]] * 2
    assert codes(provider.snapshot([*names, "it-nobody"], snapshot="s", memory=True)) == ["snapshot_differs"] * 2 + [
        "machine_unknown"
    ]
    assert codes(provider.snapshot(names, "reverted", snapshot="t")) == ["snapshot_unknown"] * 2
    provider.run(wanted[:1], "hibernated")
    assert codes(provider.snapshot(names, snapshot="t", check=True)) == ["machine_hibernated", None]
    provider.run(wanted[:1])

    provider.run([{**wanted[0], "disk": "6 MiB"}])
    counted(provider, 40)
    back = provider.snapshot(names, "reverted", snapshot="s")
    assert [machine["state"] for machine in back["machines"]] == ["running", "stopped"] and count(provider) < 40
    assert provider.info(["it-c"])[0]["disk"] == 4 * 2**20

    # What a run that was killed left: a snapshot of the disk without its entry
    directory = f"{provider.path}/machines/{wanted[1]['uuid']}"
    provider.shell(
        f"qemu-img snapshot -c t {directory}/disk.qcow2; mkdir {directory}/snapshots; touch "
        f"{directory}/snapshots/t.save"
    )
    assert only(provider.snapshot(["it-p"], snapshot="t"))["actions"] == ["drop t", "take t"]
    assert provider.shell(f"ls {directory}").split() == ["disk.qcow2", "seed.iso"]
    gone = provider.snapshot(names, "absent", all=True)
    assert [machine["actions"] for machine in gone["machines"]] == [["drop s"], ["drop s", "drop t"]]
    assert not provider.snapshot(names, "absent", all=True)["changed"]
    for uuid in (machine["uuid"] for machine in wanted):
        assert "snapshots" not in provider.shell(
            f"qemu-img info -U --output json {provider.path}/machines/{uuid}/disk.qcow2"
        )
    provider.snapshot(names, snapshot="u")
    assert [machine["actions"] for machine in provider.run(wanted, "absent")["machines"]] == [["remove"]] * 2
    assert provider.shell("ls /var/lib/libvirt/qemu/snapshot") == ""


def test_a_snapshot_s_memory_that_does_not_fit_is_refused_before_anything_is_lost(provider):
    wanted = [provider.machine("it-c", "counting"), provider.machine("it-d", "counting")]
    provider.run(wanted)
    counted(provider)
    assert codes(provider.snapshot(["it-c", "it-d"], snapshot="s", memory=True)) == [None, None]
    mine, other = (f"{provider.path}/machines/{each['uuid']}/snapshots/s.zst" for each in wanted)

    def refused(code):
        before = count(provider)
        for check in (True, False):
            assert codes(provider.snapshot(["it-c"], "reverted", snapshot="s", check=check)) == [code]
        assert count(provider) >= before and provider.info(["it-c"])[0]["state"] == "running"

    provider.shell(f"cp -p {mine} /tmp/kept; cp {other} {mine}")
    refused("hibernation_foreign")
    provider.shell(f"cp -p /tmp/kept {mine}; truncate -s -1 {mine}")
    refused("hibernation_invalid")
    # Damage of the stream is seen when it is unpacked, and nothing was touched by then.
    provider.shell(f"cp -p /tmp/kept {mine}; printf XXXX | dd of={mine} bs=1 seek=70000 conv=notrunc status=none")
    before = count(provider)
    assert (
        codes(provider.snapshot(["it-c"], "reverted", snapshot="s")) == ["hibernation_invalid"]
        and count(provider) >= before
    )
    provider.shell(f"mv /tmp/kept {mine}")
    assert only(provider.snapshot(["it-c"], "reverted", snapshot="s"))["state"] == "running"


@pytest.mark.parametrize("woken", ["from hibernation", "by its snapshot", "by hand"])
def test_a_machine_that_was_woken_paused_has_its_disk(provider, woken):
    """QEMU leaves its disks alone until the guest has run: version 10 then crashes where it is to delete a snapshot."""
    wanted = [provider.machine("it-c", "counting", disk="4 MiB")]
    directory = f"{provider.path}/machines/{wanted[0]['uuid']}"
    provider.run(wanted)
    counted(provider)
    assert codes(provider.snapshot(["it-c"], snapshot="old")) == [None]
    provider.run(wanted, "paused")
    if woken == "from hibernation":
        assert [codes(provider.run(wanted, state)) for state in ("hibernated", "paused")] == [[None]] * 2
    elif woken == "by its snapshot":
        assert codes(provider.snapshot(["it-c"], snapshot="memory", memory=True)) == [None]
        assert only(provider.snapshot(["it-c"], "reverted", snapshot="memory"))["state"] == "paused"
    else:
        provider.shell(f"virsh save it-c {directory}/s && virsh restore --paused {directory}/s && rm {directory}/s")
    before = count(provider)
    if woken != "by hand":
        assert "lock" in provider.shell(f"qemu-img info {directory}/disk.qcow2 2>&1", check=False), (
            "anybody could write to its disk"
        )
    assert codes(provider.snapshot(["it-c"], "absent", snapshot="old")) == [None]
    assert (
        codes(provider.snapshot(["it-c"], snapshot="new"))
        == codes(provider.snapshot(["it-c"], snapshot="newer", memory=True))
        == [None]
    )
    wanted = [{**wanted[0], "disk": "6 MiB"}]
    assert codes(provider.run(wanted, "paused")) == [None]
    assert [codes(provider.run(wanted, state)) for state in ("hibernated", "paused")] == [[None]] * 2
    assert count(provider) - before <= 2, "it ran, beyond the instant that it takes to keep its memory"
    assert codes(provider.snapshot(["it-c"], "absent", all=True)) == codes(provider.run(wanted)) == [None]
    assert counted(provider, before + 5) < before + 18 * 60


def test_what_goes_with_snapshots_and_what_does_not(provider):
    """A disk with snapshots is captured as it is now; the machine neither moves nor rolls back."""
    bench = Bench(provider)
    provider.run([bench.machine("it-v")], "present")
    bench.write("it-v", "write -P 1 1M 64k")
    provider.snapshot(["it-v"], snapshot="s")
    bench.write("it-v", "write -P 2 1M 64k", "write -P 3 3M 64k")
    captured = bench.image([{"name": "next", "version": "1", "machine": "it-v"}], "captured")
    (image,) = captured["images"]
    assert not image.get("failed"), image
    bench.check(image)
    bench.same(f"{provider.path}/images/layers/{image['digest'].replace(':', '-')}.qcow2", bench.disk("it-v"))
    assert bench.boots("it-v")
    back = bench.image([{"name": "next", "version": "1", "machine": "it-v"}], "rolled_back", discard=True)
    assert back["images"][0]["failure"]["code"] == "has_snapshots"
    look = conftest.task(
        provider.host,
        "virtuoso.grid.machine_migrate",
        {"path": provider.path, "step": "look", "machines": [bench.machine("it-v")]},
    )
    assert '"snapshots": 1' in json.dumps(look)
    assert only(provider.snapshot(["it-v"], "reverted", snapshot="s"))["state"] == "stopped"
    provider.shell(
        f"qemu-io -f qcow2 -c 'read -P 1 1M 64k' {bench.disk('it-v')} && qemu-img check -q -f qcow2 "
        f"{bench.disk('it-v')}"
    )
    assert provider.snapshot(["it-v"], snapshot="../x")["failure"]["code"] == "invalid_snapshot"
    # The bench has other images than the other tests.
    provider.prepare()


_KILLER = """
for dummy in $(seq 400); do
  pid=$(pgrep -f '^/usr/bin/python3 .*AnsiballZ_[m]achine_snapshot' | head -n 1)
  if [ -n "$pid" ]; then sleep {delay}; kill -9 $pid 2>/dev/null && echo killed || echo late; exit 0; fi
  sleep 0.02
done
"""


@pytest.mark.parametrize("state", ["present", "absent"])
def test_killed_anywhere_the_next_run_finishes(provider, state):
    wanted = [provider.machine("it-c", "counting"), provider.machine("it-d", "counting")]
    names = ["it-c", "it-d"]
    provider.run(wanted)
    counted(provider)
    killed = 0
    for delay in (0.15, 0.25, 0.35, 0.45, 0.6):
        if state == "absent":
            provider.snapshot(names, snapshot="s", memory=True)
        args = {
            "path": provider.path,
            "state": state,
            "snapshot": "s",
            "memory": True,
            "machines": [{"name": name} for name in names],
        }
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            killer = pool.submit(provider.shell, _KILLER.replace("{delay}", str(delay)))
            time.sleep(0.5)
            conftest.task(provider.host, "virtuoso.grid.machine_snapshot", args, env={"ANSIBLE_PIPELINING": "0"})
            killed += killer.result().strip() == "killed"
        # Who was killed may have left a guest that stands still.
        assert codes(provider.run(wanted)) == [None, None]
        done = provider.snapshot(names, state, snapshot="s", memory=True)
        assert (
            codes(done) == [None, None]
            and [machine["snapshots"] for machine in done["machines"]] == [["s"] * (state == "present")] * 2
        )
        assert provider.snapshot(names, state, snapshot="s", memory=True)["changed"] is False
        if state == "present":
            assert codes(provider.snapshot(names, "reverted", snapshot="s")) == [None, None]
            provider.snapshot(names, "absent", all=True)
        for machine in wanted:
            directory = f"{provider.path}/machines/{machine['uuid']}"
            assert provider.shell(f"ls {directory}").split() == ["disk.qcow2", "seed.iso"]
        assert provider.shell(f"ls {provider.path}/machines/.staging").strip() == ""
    assert killed >= 2, "the runs were over before they could be killed"


def test_a_guest_that_does_not_do_its_part(provider):
    """It is told, kept for the next start, and asked again by the next run."""
    plain = provider.machine("it-c", "counting", vcpus=2, extra_networks=["virtuoso"])
    provider.run([plain])
    counted(provider)
    for change in ({"memory": "16 MiB"}, {"extra_networks": []}):
        wanted = [{**plain, **change}]
        said = only(provider.run(wanted, check=True))
        assert [step["when"] for step in said["changes"] if step["field"] in change] == ["live"]
        for dummy in range(2):
            assert codes(provider.run(wanted, timeout=2)) == ["guest_refused"]
        (facts,) = provider.info(["it-c"])
        assert list(facts["pending"]) == list(change) and facts["state"] == "running"
        assert only(provider.run([{"name": "it-c"}], "restarted", force=True, timeout=1))["pending"] == {}
        assert only(provider.run(wanted))["changed"] is False
        provider.run([plain], "restarted", force=True, timeout=1)


def test_a_disk_does_not_shrink_and_nothing_else_is_touched(provider):
    wanted = provider.machine("it-c", "counting", disk="4 MiB")
    provider.run([wanted])
    before = provider.shell("virsh dumpxml it-c; virsh dumpxml it-c --inactive")
    assert codes(provider.run([{**wanted, "disk": "3 MiB", "vcpus": 2, "memory": "24 MiB", "autostart": True}])) == [
        "cannot_shrink"
    ]
    assert codes(provider.run([{**wanted, "extra_networks": ["none"], "vcpus": 2}])) == ["network_missing"]
    assert codes(
        provider.run([{**wanted, "memory_max": "16 MiB"}, {**wanted, "vcpus_max": 0}, {**wanted, "boot": ["tape"]}])
    ) == [
        "invalid_memory_max",
        "invalid_vcpus_max",
        "invalid_order",
    ]
    assert provider.shell("virsh dumpxml it-c; virsh dumpxml it-c --inactive") == before
