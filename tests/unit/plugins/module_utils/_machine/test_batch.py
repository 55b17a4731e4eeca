# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole of the module ``machine`` on libvirt's test driver: no daemon, no QEMU, real definitions and events."""

from __future__ import annotations

import os
import struct

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor import connection, domain_xml, metadata
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.files import disk
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.life import batch, lifecycle, power
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.state.survey import Survey

libvirt = pytest.importorskip("libvirt")

MIB = 2**20
DIGEST = "sha256:" + "0" * 64
UUIDS = [f"5f0d5b1e-6c1c-4f3a-9c0f-00000000000{number}" for number in range(4)]
BASE = "sha256:" + "b" * 64
HEADER = struct.Struct(">4sIQIIQIIQQIIQQQQII")
NETWORK = "<network><name>virtuoso</name><bridge name='virbr9'/></network>"


def write_qcow2(path, backing, size):
    name = (backing or "").encode()
    with open(path, "wb") as file:
        at = HEADER.size + 8 if name else 0
        head = HEADER.pack(
            b"QFI\xfb", 3, at, len(name), 16, size, 0, 1, 3 << 16, 1 << 16, 1, 0, 0, 0, 0, 0, 4, HEADER.size
        )
        file.write(head + bytes(8) + name)


class FakeOverlays:
    def write(self, path, layer, size):
        write_qcow2(path, layer, size)


@pytest.fixture(name="run")
def _run(tmp_path, monkeypatch):
    """A function that runs the module's work on one and the same test hypervisor."""
    (tmp_path / "images/layers").mkdir(parents=True)
    depot = disk.Depot(str(tmp_path))
    # An image of two layers
    write_qcow2(depot.layer(BASE), None, MIB)
    write_qcow2(depot.layer(DIGEST), os.path.basename(depot.layer(BASE)), MIB)
    loop = connection.EventLoop()
    monkeypatch.setattr(connection, "EventLoop", lambda: loop)
    monkeypatch.setattr(loop, "close", lambda: None)
    # A host of its own for each test; test:///default would be one for all
    (tmp_path / "node.xml").write_text("<node/>")
    conn = libvirt.open(f"test://{tmp_path}/node.xml")
    conn.networkDefineXML(NETWORK).create()
    monkeypatch.setattr(connection.libvirt, "open", lambda uri: conn)
    monkeypatch.setattr(batch.disk, "Overlays", FakeOverlays)
    monkeypatch.setattr(lifecycle.seed, "image", lambda spec, mac=None: b"seed of " + spec["name"].encode())

    def run(entries, state="present", check=False, **options):
        params = {
            "uri": "test:///default",
            "path": str(tmp_path),
            "state": state,
            "force": False,
            "timeout": 5,
            "parallel": 2,
            "virtualization": "qemu",
            "machine_type": None,
            "display_passwords": None,
            "machines": entries,
            **options,
        }
        return batch.Batch(params, check).run()

    monkeypatch.setattr(conn, "close", lambda: None, raising=False)
    # The test driver knows no other flags, and no paused start.
    monkeypatch.setattr(libvirt, "VIR_DOMAIN_START_PAUSED", 0)
    monkeypatch.setattr(power, "_ask_shutdown", lambda domain: domain.shutdown())
    monkeypatch.setattr(lifecycle, "_undefine_flags", lambda: libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE)
    run.conn, run.depot = conn, depot
    return run


def machine(number=0, **changes):
    image = {"name": "tiny@1", "digest": DIGEST}
    return {
        "uuid": UUIDS[number],
        "name": f"web{number}",
        "owner": "alice",
        "image": image,
        "memory": "64 MiB",
        "display": "none",
        **changes,
    }


def codes(result):
    return [item["failure"]["code"] if item.get("failed") else None for item in result["machines"]]


def without_effects(result):
    keys = ("name", "uuid", "changed", "actions", "state", "pending", "mac")
    return [{key: item.get(key) for key in keys} for item in result["machines"]]


@pytest.mark.parametrize("state", ["present", "running", "restarted", "stopped"])
def test_check_mode_says_what_the_real_run_does(run, state):
    entries = [machine(0), machine(1)]
    said = run(entries, state, check=True)
    assert run.conn.numOfDefinedDomains() + run.conn.numOfDomains() == 0 and not os.path.exists(run.depot.machines)
    done = run(entries, state)
    assert without_effects(said) == without_effects(done) and done["changed"]
    assert said["diff"] == done["diff"]


def test_create_repeat_change_remove_repeat(run):
    assert run([machine()], "running")["machines"][0]["actions"] == ["create disk", "write seed", "define", "start"]
    assert run([machine()], "running")["changed"] is False
    changed = run([machine(memory="128 MiB", tags=["x"])], "running")["machines"][0]
    assert changed["actions"] == ["change memory at next start", "change tags live"]
    assert changed["restart_required"] and changed["pending"] == {"memory": [64 * MIB, 128 * MIB]}
    assert run([machine(memory="128 MiB", tags=["x"])], "running")["changed"] is False
    assert run([{"uuid": UUIDS[0]}], "absent")["machines"][0]["actions"] == ["remove"]
    assert run([{"uuid": UUIDS[0]}], "absent")["changed"] is False
    assert os.listdir(run.depot.machines) and not os.path.exists(run.depot.machine(UUIDS[0]))


def test_no_diff_shows_a_password(run):
    for password, state in (("secret-1", "present"), ("secret-2", "present"), ("secret-2", "absent")):
        for check in (True, False):
            said = str(
                run([machine(display="vnc")], state, check=check, display_passwords={UUIDS[0]: password})["diff"]
            )
            assert "display_password" in said and "secret" not in said


def test_shutdown_is_waited_for_by_events(run):
    run([machine(number) for number in range(3)], "running")
    stopped = run([{"name": f"web{number}"} for number in range(3)], "stopped")
    assert [item["state"] for item in stopped["machines"]] == ["stopped"] * 3
    assert run([{"name": "web0"}], "stopped")["changed"] is False


def test_one_bad_entry_does_not_keep_the_others_from_being_served(run):
    entries = [
        machine(0, name="<x>"),
        machine(1),
        {"uuid": UUIDS[2], "name": "nobody"},
        machine(3, image={"name": "x", "digest": "sha256:" + "9" * 64}),
        machine(1),
    ]
    result = run(entries, "running")
    assert codes(result) == ["invalid_name", None, "machine_unknown", "image_missing", "duplicate_machine"]
    assert result["machines"][1]["state"] == "running" and result["changed"]


def chain_of(conn, name="web0"):
    """The files that the machine's disk lies on, nearest first, as libvirt has them."""
    disk = domain_xml.parse(conn.lookupByName(name).XMLDesc()).find("devices/disk/target[@dev='vda']/..")
    return [source.get("file") for source in disk.findall(".//backingStore/source")]


def test_the_domain_names_the_whole_chain(run):
    run([machine()])
    assert chain_of(run.conn) == [run.depot.layer(DIGEST), run.depot.layer(BASE)]


@pytest.mark.parametrize("entry", [machine(), {"uuid": UUIDS[0]}])
def test_a_machine_does_not_start_without_the_whole_chain(run, entry):
    run([machine()])
    os.unlink(run.depot.layer(BASE))
    failed = run([entry], "running")
    assert codes(failed) == ["image_missing"] and failed["machines"][0]["failure"]["layer"] == BASE
    assert not run.conn.lookupByName("web0").isActive()
    write_qcow2(run.depot.layer(BASE), None, MIB)
    assert codes(run([entry], "running")) == [None]


def test_a_new_machine_needs_the_whole_chain(run):
    os.unlink(run.depot.layer(BASE))
    assert run([machine()])["machines"][0]["failure"]["layer"] == BASE and not os.path.exists(
        run.depot.machine(UUIDS[0])
    )


FOREIGN = "<domain type='test'><name>{}</name><uuid>{}</uuid><memory>65536</memory><os><type>hvm</type></os></domain>"


@pytest.mark.parametrize("name, uuid", [("web0", UUIDS[3]), ("other", UUIDS[0])])
@pytest.mark.parametrize("state", ["present", "running", "stopped", "absent"])
def test_a_foreign_domain_is_left_alone(run, name, uuid, state):
    run.conn.defineXML(FOREIGN.format(name, uuid)).create()
    assert codes(run([machine(0)], state)) == ["foreign_domain"]
    assert codes(run([{"uuid": UUIDS[0], "name": "web0"}], state)) == ["foreign_domain"]
    assert run.conn.lookupByName(name).isActive()


def test_another_machine_of_the_grid_under_the_name(run):
    run([machine(0)])
    assert codes(run([{**machine(1), "name": "web0"}])) == ["foreign_domain"]


def test_a_missing_network_is_told_before_anything_is_made(run):
    assert codes(run([machine(0, network="none")], "running")) == ["network_missing"]
    assert not os.path.exists(run.depot.machine(UUIDS[0]))


def test_a_failed_start_can_be_put_right(run, monkeypatch):
    real = lifecycle.Machine._start

    def refuse(self, decision):
        raise GridError("libvirt_error", "no")

    monkeypatch.setattr(lifecycle.Machine, "_start", refuse)
    assert codes(run([machine()], "running")) == ["libvirt_error"]
    monkeypatch.setattr(lifecycle.Machine, "_start", real)
    assert run([machine()], "running")["machines"][0]["actions"] == ["start"]


@pytest.mark.parametrize("last", ["_create_files", "_define", "_start"])
def test_killed_after_a_step_the_next_run_finishes(run, monkeypatch, last):
    class Killed(BaseException):
        pass

    real = getattr(lifecycle.Machine, last)

    def die(self, decision):
        real(self, decision)
        raise Killed

    monkeypatch.setattr(lifecycle.Machine, last, die)
    with pytest.raises(Killed):
        run([machine()], "running")
    for domain in run.conn.listAllDomains():
        assert os.path.exists(run.depot.disk(domain.UUIDString()))
    monkeypatch.setattr(lifecycle.Machine, last, real)
    finished = run([machine()], "running")["machines"][0]
    assert finished["state"] == "running" and not finished.get("failed")
    assert run([machine()], "running")["changed"] is False


def test_metadata_is_enough_to_rebuild_the_store(run):
    users = [{"name": "alice", "ssh_authorized_keys": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA a<b>&'\""]}]
    run(
        [
            machine(
                users=users,
                tags=["b", "a"],
                goal="price",
                generation=4,
                site="site-a",
                user="debian",
                python="/usr/bin/python3",
                ordered_site="site-a",
                affinity=["db1"],
                performance={"reservation": {"period": "10 ms", "slice": "2 ms"}},
            )
        ]
    )
    told = Survey(connection.Hypervisor(run.conn, None)).look(None)[0]
    assert (told["owner"], told["tags"], told["goal"], told["generation"], told["site"]) == (
        "alice",
        ["a", "b"],
        "price",
        4,
        "site-a",
    )
    assert told["users"][0]["ssh_authorized_keys"] == users[0]["ssh_authorized_keys"]
    assert (told["disk"], told["memory"], told["state"], told["foreign"]) == (MIB, 64 * MIB, "stopped", False)
    assert told["wishes"] == {
        "site": "site-a",
        "affinity": ["db1"],
        "performance": {"reservation": {"period": 10000, "slice": 2000}},
    }


def test_wishes_are_told_to_a_machine_that_is_there(run):
    run([machine()])
    [changed] = run([machine(anti_affinity=["tag:web"])])["machines"]
    assert changed["changed"] and "wishes" in " ".join(changed["actions"]), changed
    assert run([machine(anti_affinity=["tag:web"])])["changed"] is False


def test_wishes_that_somebody_broke_count_as_none(run):
    run([machine(affinity=["db1"])])
    domain = run.conn.lookupByName("web0")
    run.conn.defineXML(domain.XMLDesc().replace('{"affinity": ["db1"]}', "[broken"))
    assert Survey(connection.Hypervisor(run.conn, None)).look(None)[0]["wishes"] == {}


def test_survey_of_what_is_foreign_or_absent(run):
    run.conn.defineXML(FOREIGN.format("other", UUIDS[3]))
    look = Survey(connection.Hypervisor(run.conn, None)).look
    assert look(None) == [{"name": "other", "uuid": UUIDS[3], "state": "stopped", "foreign": True}]
    assert [item["state"] for item in look(["other", UUIDS[0], "nobody"])] == ["stopped", "absent", "absent"]


def test_changes_of_others_stay(run):
    run([machine()])
    domain = run.conn.lookupByName("web0")
    text = domain.XMLDesc().replace("</devices>", "<watchdog model='i6300esb' action='reset'/></devices>")
    run.conn.defineXML(text.replace("<on_crash>destroy", "<on_crash>restart"))
    run([machine(memory="96 MiB", owner="bob")])
    after = run.conn.lookupByName("web0").XMLDesc()
    assert "i6300esb" in after and "<on_crash>restart" in after and "98304" in after
    assert metadata.read(domain_xml.parse(after))["owner"] == "bob"
