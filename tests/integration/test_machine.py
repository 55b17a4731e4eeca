# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Machines on the lab's providers: created, repeated, changed, removed; refusing guests, foreign domains, faults,
kills.

The guests are one sector long: they boot in a second, show a line, and obey the power button or don't.
"""

from __future__ import annotations

import base64
import concurrent.futures
import time
import zlib

import pytest
from guests import codes, foretold, only

MIB = 2**20
pytestmark = pytest.mark.usefixtures("cleaned")


def test_create_repeat_change_restart_remove_repeat(each_provider):
    provider = each_provider
    wanted = [provider.machine("it-a"), provider.machine("it-b", display="none")]
    said = provider.run(wanted, check=True)
    assert provider.domains() == []
    done = provider.run(wanted)
    assert foretold(said) == foretold(done)
    assert [machine["actions"] for machine in done["machines"]] == [
        ["create disk", "write seed", "define", "start"]
    ] * 2
    assert done["machines"][0]["display"]["port"] >= 5900 and done["machines"][1]["display"]["type"] == "none"
    assert provider.run(wanted)["changed"] is False
    assert provider.run(wanted, check=True)["changed"] is False
    modes = provider.shell(f"stat -c %a,%U {provider.path}/machines/*/* {provider.path}/images/layers/*").split()
    assert modes == ["600,libvirt-qemu"] * 4 + ["640,root"] * 4

    changed = [
        provider.machine(
            "it-a", memory="48 MiB", vcpus=3, disk="5 MiB", tags=["x"], owner="bob", performance={"cpu_shares": 300}
        ),
        wanted[1],
    ]
    said = provider.run(changed, check=True)
    done = provider.run(changed)
    assert foretold(said) == foretold(done)
    first = done["machines"][0]
    assert first["actions"] == [
        *("change vcpus at next start", "change memory at next start", "change cpu_shares live", "grow disk live"),
        *("change owner live", "change tags live", "change wishes live"),
    ]
    assert first["restart_required"] and first["pending"] == {"memory": [32 * MIB, 48 * MIB], "vcpus": [1, 3]}
    # What becomes of it in the kernel is up to systemd, which can't set it in every container.
    assert provider.shell("virsh dumpxml it-a; virsh dumpxml --inactive it-a").count("<shares>300</shares>") == 2
    assert str(5 * MIB) in provider.shell("virsh domblkinfo it-a vda | grep Capacity")
    again = provider.run(changed)
    assert not again["changed"] and again["machines"][0]["pending"] == first["pending"]
    assert provider.info(["it-a"])[0]["restart_required"]

    restarted = provider.run(changed[:1], "restarted")
    assert only(restarted)["actions"] == ["stop", "start"] and not only(restarted)["restart_required"]
    (facts,) = provider.info(["it-a"])
    assert (facts["memory"], facts["vcpus"], facts["disk"], facts["owner"], facts["tags"]) == (
        48 * MIB,
        3,
        5 * MIB,
        "bob",
        ["x"],
    )

    gone = [{"uuid": machine["uuid"]} for machine in wanted]
    assert [machine["actions"] for machine in provider.run(gone, "absent", check=True)["machines"]] == [["remove"]] * 2
    assert [machine["state"] for machine in provider.run(gone, "absent")["machines"]] == ["absent"] * 2
    assert provider.run(gone, "absent")["changed"] is False
    assert provider.domains() == []
    assert provider.shell(f"find {provider.path}/machines -mindepth 1 ! -name .lock ! -name .staging").strip() == ""


def test_power_of_machines_that_are_only_named(each_provider):
    provider = each_provider
    provider.run([provider.machine(f"it-{number}") for number in range(4)])
    named = [{"name": f"it-{number}"} for number in range(4)]
    begin = time.monotonic()
    stopped = provider.run(named, "stopped")
    assert [machine["state"] for machine in stopped["machines"]] == ["stopped"] * 4
    assert time.monotonic() - begin < 30, "they were not waited for together"
    assert provider.run(named, "stopped")["changed"] is False
    assert [machine["state"] for machine in provider.run(named, "running")["machines"]] == ["running"] * 4
    provider.shell("virsh suspend it-0")
    assert provider.info(["it-0"])[0]["state"] == "paused"
    assert [machine["actions"] for machine in provider.run(named, "running")["machines"]] == [["resume"], [], [], []]
    assert codes(provider.run([*named[:1], {"name": "it-nobody"}], "running")) == [None, "machine_unknown"]


def test_a_guest_that_ignores_the_button(provider):
    wanted = [provider.machine("it-deaf", "deaf"), provider.machine("it-polite")]
    provider.run(wanted)
    result = provider.run([{"name": "it-deaf"}, {"name": "it-polite"}], "stopped", timeout=8)
    assert codes(result) == ["shutdown_refused", None]
    assert [machine["state"] for machine in provider.info(["it-deaf", "it-polite"])] == ["running", "stopped"]
    forced = only(provider.run([{"name": "it-deaf"}], "stopped", timeout=2, force=True))
    assert forced["state"] == "stopped" and forced["changed"]


def test_a_password_is_set_and_changed_without_a_restart(provider):
    wanted = provider.machine("it-a")
    provider.run([wanted], display_passwords={wanted["uuid"]: "first1"})
    assert "passwd='first1'" in provider.shell("virsh dumpxml --security-info it-a")
    process = provider.shell("cat /run/libvirt/qemu/it-a.pid")
    assert only(provider.run([wanted], display_passwords={wanted["uuid"]: "first1"}))["actions"] == []
    changed = provider.run([wanted], display_passwords={wanted["uuid"]: "second2"})
    assert (
        only(changed)["actions"] == ["change display_password live"]
        and "second2" not in str(changed)
        and "first1" not in str(changed)
    )
    for flags in ("--security-info", "--security-info --inactive"):
        assert "passwd='second2'" in provider.shell(f"virsh dumpxml {flags} it-a")
    assert provider.shell("cat /run/libvirt/qemu/it-a.pid") == process
    assert only(provider.run([wanted]))["actions"] == []
    assert codes(provider.run([wanted], display_passwords={wanted["uuid"]: "much too long"})) == ["invalid_password"]


FOREIGN = (
    "<domain "
    "type='qemu'><name>{}</name><uuid>{}</uuid><description>virtuoso-test-foreign</description><memory>16384</memory>"
    "<os><type machine='pc'>hvm</type></os></domain>"
)


@pytest.mark.parametrize("state", ["running", "stopped", "absent"])
def test_foreign_domains_are_left_alone(provider, state):
    wanted = [provider.machine("it-a"), provider.machine("it-b"), provider.machine("it-c")]
    for name, uuid in (("it-a", "0b8ec5a5-2a6d-4b5a-8f3a-4f5a3f3f7a10"), ("it-x", wanted[1]["uuid"])):
        provider.shell(
            f"virsh -q define /dev/stdin <<'END'\n{FOREIGN.format(name, uuid)}\nEND\nvirsh -q start --paused {name}"
        )
    before = provider.shell("virsh dumpxml it-a; virsh dumpxml it-x")
    assert codes(provider.run(wanted, state, timeout=3, force=True)) == ["foreign_domain", "foreign_domain", None]
    assert provider.shell("virsh dumpxml it-a; virsh dumpxml it-x") == before
    (there,) = provider.info(["it-a"])
    assert there["foreign"] is True and set(there) == {"name", "uuid", "state", "foreign"}


def test_bad_entries_and_the_others_still_served(provider):
    good = provider.machine("it-good")
    entries = [
        provider.machine("it-a", name="<x>"),
        provider.machine("it-b", uuid="../../../etc"),
        provider.machine("it-c", image={"name": "none@1", "digest": "sha256:" + "f" * 64}),
        provider.machine("it-d", disk="1 MiB"),
        provider.machine("it-e", network="none"),
        provider.machine("it-f", memory="-1"),
        good,
        good,
    ]
    result = provider.run(entries)
    assert codes(result) == [
        "invalid_name",
        "invalid_uuid",
        "image_missing",
        "disk_too_small",
        "network_missing",
        "invalid_size",
        None,
        "duplicate_machine",
    ]
    assert result["failed"] and provider.domains() == ["it-good"]
    assert provider.shell(f"ls {provider.path}/machines").split() == [good["uuid"]]
    assert all(machine["failure"].get("remedy") for machine in result["machines"] if machine.get("failed"))


def test_what_can_not_change_is_an_error_and_nothing_is_touched(provider):
    wanted = provider.machine("it-a", disk="4 MiB", generation=5)
    provider.run([wanted])
    before = provider.shell(f"virsh dumpxml it-a; sha256sum {provider.path}/machines/*/seed.iso")
    other = {"name": "deaf@1", "digest": provider.DIGESTS["deaf"]}
    for change, code in (
        ({"disk": "3 MiB"}, "cannot_shrink"),
        ({"image": other}, "cannot_change"),
        ({"generation": 4}, "stale_generation"),
    ):
        assert codes(provider.run([{**wanted, **change, "memory": "64 MiB"}])) == [code]
    assert provider.shell(f"virsh dumpxml it-a; sha256sum {provider.path}/machines/*/seed.iso") == before


def test_packages_and_users_count_until_the_first_boot(provider):
    users = [{"name": "bob", "ssh_authorized_keys": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAABBBB a<b>&'\" ünï"]}]
    wanted = provider.machine("it-a")
    provider.run([wanted], "present")
    fresh = only(provider.run([{**wanted, "users": users}], "present"))
    assert fresh["actions"] == ["write seed", "change users"] and not fresh["ignored"]
    assert "BBBB" in provider.shell(
        f"strings -n 8 {provider.path}/machines/*/seed.iso || grep -a -o BBBB {provider.path}/machines/*/seed.iso"
    )
    provider.run([{**wanted, "users": users}])
    for dummy in range(2):
        used = only(provider.run([{**wanted, "users": users, "packages": ["nginx"]}]))
        assert used["changed"] is False and list(used["ignored"]) == ["packages"]
    assert provider.info(["it-a"])[0]["users"][0]["ssh_authorized_keys"] == users[0]["ssh_authorized_keys"]


def test_what_others_changed_stays(provider):
    provider.run([provider.machine("it-a")], "present")
    edits = (
        's|</devices>|<watchdog model="i6300esb" action="none"/></devices>|',
        "s|<on_crash>destroy|<on_crash>restart|",
    )
    provider.shell(f"virsh -q dumpxml it-a | sed '{edits[0]}; {edits[1]}' >/tmp/it-a.xml")
    provider.shell("virsh -q define /tmp/it-a.xml && rm /tmp/it-a.xml")
    assert provider.run([provider.machine("it-a")], "present")["changed"] is False
    assert only(provider.run([provider.machine("it-a", memory="40 MiB")], "present"))["actions"] == ["change memory"]
    text = provider.shell("virsh dumpxml it-a")
    assert "i6300esb" in text and "<on_crash>restart" in text and f"{40 * 1024}</memory>" in text


def test_a_disk_that_is_gone_is_told_and_not_made_anew(provider):
    wanted = provider.machine("it-a")
    provider.run([wanted], "present")
    provider.shell(f"rm {provider.path}/machines/{wanted['uuid']}/disk.qcow2")
    assert codes(provider.run([wanted])) == ["disk_missing"]
    assert codes(provider.run([{"name": "it-a"}])) == ["disk_missing"]
    assert codes(provider.run([wanted], "absent")) == [None]


def test_a_full_disk_midway(provider):
    """The first machine's files fit, the second's don't."""
    provider.shell(f"mkdir -p {provider.path}/machines && mount -t tmpfs -o size=500k tmpfs {provider.path}/machines")
    try:
        # Both at once could fill it together.
        assert codes(provider.run([provider.machine("it-a")], "present")) == [None]
        result = provider.run([provider.machine("it-a"), provider.machine("it-b")], "present")
        assert codes(result) == [None, "disk_full"]
        assert provider.shell(f"ls {provider.path}/machines/.staging").strip() == ""
        assert len(provider.domains()) == 1
        provider.shell(f"mount -o remount,size=5m {provider.path}/machines")
        assert codes(provider.run([provider.machine("it-a"), provider.machine("it-b")], "present")) == [None, None]
    finally:
        provider.shell(
            f"for name in it-a it-b; do virsh -q undefine $name; done; umount {provider.path}/machines", check=False
        )


def test_libvirt_that_is_stopped(provider, ansible):
    provider.run([provider.machine("it-a")])
    units = "libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket libvirtd.service"
    provider.shell(f"systemctl stop {units}")
    try:
        for module, args in (
            ("machine", {"machines": [provider.machine("it-a")], "path": provider.path}),
            ("machine_info", {}),
            ("provider_info", {"path": provider.path}),
            ("display", {"machines": [{"name": "it-a"}]}),
        ):
            result = ansible(provider.host, f"virtuoso.grid.{module}", args)
            assert result.get("failure", {}).get("code") == "libvirt_unreachable", (module, result)
            assert "systemctl start libvirtd" in result["msg"] and provider.host in result["msg"]
    finally:
        provider.shell("systemctl start libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket libvirtd.service")
    assert provider.run([provider.machine("it-a")])["changed"] is False


# The process that runs a module's copied file; the shell that looks must not find itself.
_KILLER = """
for dummy in $(seq 400); do
  pid=$(pgrep -f '^/usr/bin/python3 .*AnsiballZ_[m]achine' | head -n 1)
  if [ -n "$pid" ]; then sleep {delay}; kill -9 $pid 2>/dev/null && echo killed || echo late; exit 0; fi
  sleep 0.02
done
"""


@pytest.mark.each
@pytest.mark.parametrize("state", ["running", "absent"])
def test_killed_anywhere_the_next_run_finishes(provider, state):
    """SIGKILL at moments spread over the whole run: nothing is defined without its disk, and the same command
    finishes."""
    wanted = [provider.machine(f"it-{number}") for number in range(4)]
    killed = 0
    for delay in (0.2, 0.5, 0.9, 1.4):
        if state == "absent":
            assert not provider.run(wanted).get("failed")
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            killer = pool.submit(provider.shell, _KILLER.replace("{delay}", str(delay)))
            time.sleep(1)
            provider.run(wanted, state, env={"ANSIBLE_PIPELINING": "0"})
            killed += killer.result().strip() == "killed"
        for uuid in provider.domains("uuid"):
            provider.shell(f"test -s {provider.path}/machines/{uuid}/disk.qcow2")
        done = provider.run(wanted, state)
        assert codes(done) == [None] * 4, done
        assert [machine["state"] for machine in done["machines"]] == [state] * 4
        assert provider.run(wanted, state)["changed"] is False
        assert provider.shell(f"ls {provider.path}/machines/.staging").strip() == ""
        provider.run(wanted, "absent")
        assert provider.domains() == []
    assert killed >= 2, "the runs were over before they could be killed"


def test_two_runs_at_once_do_not_disturb_each_other(provider):
    wanted = [provider.machine(f"it-{number}") for number in range(4)]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        results = [future.result() for future in [pool.submit(provider.run, wanted) for dummy in range(2)]]
    assert [codes(result) for result in results] == [[None] * 4] * 2
    for pair in zip(*(result["machines"] for result in results)):
        assert sorted(machine["changed"] for machine in pair) == [False, True]


def lit_pixels(png):
    """How many bytes of a PNG's rows are not black."""
    data, at = b"", 8
    while at < len(png):
        size, kind = int.from_bytes(png[at : at + 4], "big"), png[at + 4 : at + 8]
        data += png[at + 8 : at + 8 + size] if kind == b"IDAT" else b""
        at += 12 + size
    return len(zlib.decompress(data).replace(b"\0", b""))


def test_display_and_its_screenshot(each_provider, ansible, tmp_path):
    provider = each_provider
    wanted = [provider.machine("it-a"), provider.machine("it-b", display="none"), provider.machine("it-c")]
    provider.run(wanted)
    provider.run(wanted[2:], "stopped")
    result = ansible(
        provider.host,
        "virtuoso.grid.display",
        {"machines": [*wanted, {"name": "it-nobody"}], "dest": str(tmp_path / "shots")},
    )
    assert codes(result) == [None, None, None, "machine_unknown"] and not result["changed"]
    shots = [machine.get("screenshot") for machine in result["machines"]]
    assert shots[1] is None and shots[2] is None and result["machines"][2]["display"]["port"] is None
    assert shots[0]["format"] == "png" and shots[0]["width"] >= 640 and "content" not in shots[0]
    path = tmp_path / "shots" / f"{wanted[0]['uuid']}.png"
    assert shots[0]["path"] == str(path) and path.stat().st_mode & 0o777 == 0o600
    assert lit_pixels(path.read_bytes()) > 500, base64.b64encode(path.read_bytes())
    check = ansible(
        provider.host, "virtuoso.grid.display", {"machines": wanted[:1], "dest": str(tmp_path / "none")}, check=True
    )
    assert not (tmp_path / "none").exists() and not check.get("failed")


def test_machines_without_address_are_told_and_described(provider):
    provider.run([provider.machine("it-a"), provider.machine("it-b")])
    provider.run([{"name": "it-b"}], "stopped")
    running, stopped, nobody = provider.info(["it-a", "it-b", "it-nobody"], wait=2)
    assert (
        running["failure"]["code"] == "no_address"
        and running["state"] == "running"
        and running["mac"] in str(running["failure"])
    )
    assert (stopped["state"], stopped.get("failed"), nobody["state"]) == ("stopped", None, "absent")


def test_facts_of_a_provider(each_provider, ansible):
    provider = each_provider
    provider.run([provider.machine("it-a", vcpus=2, disk="8 MiB")])
    facts = ansible(provider.host, "virtuoso.grid.provider_info", {"path": provider.path})["provider"]
    assert facts["memory_allocated"] >= 32 * MIB and facts["cpus_allocated"] >= 2 and facts["disk_allocated"] == 8 * MIB
    assert {"name": "it-a", "uuid": provider.machine("it-a")["uuid"], "state": "running"} in facts["machines"]
    assert {image["digest"] for image in facts["images"]} == set(provider.DIGESTS.values())
    assert (
        provider.network in facts["networks"] and facts["machine_types"] and facts["virtualization"] in ("kvm", "qemu")
    )
    assert 0 < facts["memory_free"] <= facts["memory"] and 0 < facts["disk_free"] <= facts["disk"]


def test_no_depot(provider):
    result = provider.run([provider.machine("it-a")], path="/nowhere/at/all")
    assert result["failure"]["code"] == "depot_missing" and "virtuoso.grid.setup" in result["msg"]
