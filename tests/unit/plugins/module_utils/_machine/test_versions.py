# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Machines and versions on libvirt's test driver, with real disks: captured at rest, rolled back; the copy of a running one."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading

import libvirt
import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor import backup, domain_xml, metadata
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.connection import Hypervisor
from ansible_collections.virtuoso.grid.plugins.module_utils._image.depot import Depot as Store
from ansible_collections.virtuoso.grid.plugins.module_utils._image.progress import Progress
from ansible_collections.virtuoso.grid.plugins.module_utils._machine import disk, rollback, snapshot
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.versions import Versions

from .._image.making import MIB, block, put, qemu_img

UUID = "5f0d5b1e-6c1c-4f3a-9c0f-000000000001"
QUIET = Progress(None)


def domain_of(depot, digest, image="tiny@1"):
    """The XML of a machine on the layer."""
    wanted = {
        "vcpus": 1, "memory": 64 * MIB, "cpu_shares": None, "network": "virtuoso", "mac": "52:00:00:00:00:01", "display": "none",
        "virtualization": "test", "machine_type": "q35", "disk_path": depot.disk(UUID), "seed_path": depot.seed(UUID),
        "layers": depot.chain(digest).paths,
    }  # fmt: skip
    spec = {
        "uuid": UUID, "name": "web1", "owner": "alice", "site": "site-a", "network": "virtuoso", "goal": "balance", "user": "debian",
        "python": "/usr/bin/python3", "generation": 3, "image": {"name": image, "digest": digest},
    }  # fmt: skip
    return domain_xml.to_text(domain_xml.build(wanted, metadata.of_spec(spec, True)))


class Host:
    """A host with a store of three versions and a stopped machine on the first."""

    def __init__(self, path):
        self.path = path
        self.store, self.depot = Store(str(path)), disk.Depot(str(path))
        self.first = put(self.store, {0: block("a"), 1: block("b")}, 2 * MIB)
        self.second = put(self.store, {0: block("a"), 2: block("c")}, 2 * MIB, self.first, version="2")
        (path / "node.xml").write_text("<node/>")
        self.conn = libvirt.open(f"test://{path}/node.xml")
        digest = self.first["layers"][0]
        disk.create(self.depot, UUID, lambda new: disk.Overlays().write(new, self.depot.layer(digest), 2 * MIB), b"seed")
        self.domain = self.conn.defineXML(domain_of(self.depot, digest))
        self.locks = disk.Locks(self.depot)

    def versions(self, check=False, discard=False):
        params = {"path": str(self.path), "timeout": 5, "discard": discard}
        return Versions(Hypervisor(self.conn, None), params, None if check else self.locks)

    def capture(self, check=False, **entry):
        return self.versions(check).captured({"name": "web", "machine": "web1", **entry}, QUIET)

    def roll_back(self, check=False, discard=False, **entry):
        return self.versions(check, discard).rolled_back({"name": "tiny", "version": "2", "machine": UUID, **entry}, QUIET)

    def write(self, *commands):
        """Have the guest write to its disk, so to speak."""
        arguments = [word for text in commands for word in ("-c", text)]
        subprocess.run(["qemu-io", "-f", "qcow2", *arguments, self.depot.disk(UUID)], check=True, capture_output=True)

    def chain(self):
        return domain_xml.chain(domain_xml.parse(self.conn.lookupByName("web1").XMLDesc()))

    def image(self):
        return metadata.read(domain_xml.parse(self.conn.lookupByName("web1").XMLDesc()))["image"]

    def content(self):
        """The whole disk as a guest sees it."""
        raw = self.path / "content.raw"
        qemu_img("convert", "-f", "qcow2", "-O", "raw", self.depot.disk(UUID), raw)
        return raw.read_bytes()


@pytest.fixture(name="host")
def _host(tmp_path):
    host = Host(tmp_path)
    yield host
    host.locks.close()
    host.conn.close()


def code(call, *args, **kwargs):
    with pytest.raises(GridError) as caught:
        call(*args, **kwargs)
    assert caught.value.remedy
    return caught.value.code


def test_capture_a_stopped_machine(host):
    host.write("write -P 7 65536 70000", "write -z 0 65536", f"write -P 8 {2 * MIB - 512} 512")
    before = host.content()
    said = host.capture(check=True)
    assert len(host.store.read_layers()) == 2
    done = host.capture()
    assert {**said, "size": 0} == {**done, "size": 0} and done["actions"] == ["capture"] and done["consistent"] == "stopped"
    assert (done["user"], done["python"], done["machine"]) == ("debian", "/usr/bin/python3", UUID)
    assert host.store.index(done["digest"]).zeros == [0] and host.store.index(done["digest"]).data == [1, 2, 31]
    qemu_img("check", "-q", "-f", "qcow2", done["path"])
    qemu_img("compare", "-q", "-f", "qcow2", "-F", "qcow2", done["path"], host.depot.disk(UUID))
    assert host.content() == before
    again = host.capture()
    assert (again["changed"], again["reference"]) == (False, done["reference"])


def test_an_untouched_disk_is_the_version_that_it_was_made_from(host):
    assert host.capture(name="tiny")["reference"] == "tiny@1"
    # Written, and the same as before
    host.write("write -P 97 0 65536")
    assert host.capture(name="tiny")["reference"] == "tiny@1"


def test_a_disk_with_other_clusters_is_read_by_qemu_img(host):
    path = host.depot.disk(UUID)
    qemu_img("create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", "-F", "qcow2", "-b", host.depot.layer(host.first["layers"][0]), path, 2 * MIB)
    host.write("write -P 7 4096 4096")
    said = host.capture(check=True)
    assert said["digest"] is None and said["actions"] == ["capture"]
    done = host.capture()
    qemu_img("compare", "-q", "-f", "qcow2", "-F", "qcow2", done["path"], path)
    assert list(host.store.index(done["digest"]).blocks) == [0] and host.capture()["changed"] is False


def test_machines_that_can_not_be_captured(host):
    assert code(host.capture, machine="nobody") == "machine_unknown"
    assert code(host.capture, machine="../../etc") == "invalid_name"
    qemu_img("create", "-q", "-f", "qcow2", host.depot.disk(UUID), 2 * MIB)
    assert code(host.capture) == "not_on_a_layer"
    qemu_img("create", "-q", "-f", "qcow2", "-o", "data_file=" + str(host.path / "data"), host.depot.disk(UUID), 2 * MIB)
    with pytest.raises(GridError) as caught:
        snapshot.judge(open(host.depot.disk(UUID), "rb").read())
    assert caught.value.code == "disk_invalid"
    os.unlink(host.depot.disk(UUID))
    assert code(host.capture) == "disk_missing"


def test_a_machine_that_was_started_meanwhile(host):
    host.write("write -P 7 0 65536")
    source = snapshot.Resting(UUID, host.first["layers"][0], None, None, "stopped", host.depot.disk(UUID), host.depot, host.domain)
    with source.open(None) as reading:
        assert not reading.whole
    source.settle()
    host.domain.create()
    assert code(source.settle) == "image_changed"
    host.domain.destroy()
    os.utime(source.path, ns=(1, 1))
    assert code(source.settle) == "image_changed"


def test_roll_forward_repeat_back(host):
    said = host.roll_back(check=True)
    assert host.chain() == host.depot.chain(host.first["layers"][0]).paths
    done = host.roll_back()
    assert said == done and done["actions"] == ["roll back"]
    assert done["previous"] == {"name": "tiny@1", "digest": host.first["layers"][0]}
    assert host.chain() == [host.depot.layer(digest) for digest in reversed(host.second["layers"])]
    assert host.image() == {"name": "tiny@2", "digest": host.second["layers"][-1]}
    assert host.content() == (block("a") + bytes(65536) + block("c")).ljust(2 * MIB, b"\0")
    for check in (True, False):
        assert host.roll_back(check=check)["changed"] is False
    back = host.roll_back(version="1")
    assert back["actions"] == ["roll back"] and host.image()["name"] == "tiny@1" and host.chain() == [host.depot.layer(host.first["layers"][0])]
    values = metadata.read(domain_xml.parse(host.domain.XMLDesc()))
    assert (values["owner"], values["generation"], values["started"]) == ("alice", 3, True)
    assert open(host.depot.seed(UUID), "rb").read() == b"seed"
    assert os.listdir(host.depot.staging) == []


def test_changes_are_not_lost_unless_that_is_wanted(host):
    host.write("write -P 7 0 65536")
    before = host.content()
    for check in (True, False):
        assert code(host.roll_back, check=check) == "unsaved_changes"
    assert host.content() == before and host.image()["name"] == "tiny@1"
    assert host.roll_back(discard=True)["changed"] and host.content() != before


def test_changes_that_a_version_has_may_go(host):
    host.write("write -P 7 0 65536")
    before = host.content()
    host.capture(version="5")
    assert host.roll_back()["changed"]
    assert host.roll_back(name="web", version="5")["changed"] and host.content() == before


def test_the_disk_keeps_its_size(host):
    qemu_img("resize", "-q", "-f", "qcow2", host.depot.disk(UUID), 5 * MIB)
    assert host.roll_back()["disk"] == 5 * MIB and disk.read_qcow2(host.depot.disk(UUID)).size == 5 * MIB
    host.write(f"write -P 7 {4 * MIB} 512")
    host.capture(version="large")
    assert host.roll_back(version="1")["disk"] == 5 * MIB


def test_a_running_machine_is_not_rolled_back(host):
    host.domain.create()
    for check in (True, False):
        assert code(host.roll_back, check=check, discard=True) == "machine_running"


def test_versions_that_are_not_there(host):
    assert code(host.roll_back, version="9") == "image_unknown"
    assert code(host.roll_back, version=None) == "invalid_image"
    os.unlink(host.depot.layer(host.first["layers"][0]))
    assert code(host.roll_back) == "layer_missing"


def test_a_machine_whose_layers_are_gone_can_not_tell_what_it_would_lose(host):
    alone = put(host.store, {0: block("alone")}, 2 * MIB, name="alone")
    os.unlink(host.store.index_path(host.first["layers"][0]))
    assert code(host.roll_back, name="alone", version="1") == "unsaved_changes"
    assert host.roll_back(name="alone", version="1", discard=True)["digest"] == alone["layers"][0]


class Killed(BaseException):
    """What a process that is killed doesn't clean up after."""


@pytest.mark.parametrize("last", ["chain", "disk"])
def test_killed_midway_the_machine_sees_one_disk_or_the_other(host, monkeypatch, last):
    """After each step the chain that the domain names is that of the disk's file, or none is named."""
    real = rollback.disk.replace_disk
    before = host.content()

    def die(*args):
        if last == "disk":
            real(*args)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(rollback.disk, "replace_disk", die)
        with pytest.raises(Killed):
            host.roll_back()
    assert host.chain() == []
    on = disk.layer_of(disk.read_qcow2(host.depot.disk(UUID)))
    assert on == (host.second if last == "disk" else host.first)["layers"][-1] and (host.content() == before) == (last == "chain")
    finished = host.roll_back()
    assert finished["actions"] == (["define"] if last == "disk" else ["roll back"])
    assert host.chain() == host.depot.chain(host.second["layers"][-1]).paths and host.image()["name"] == "tiny@2"
    assert host.roll_back()["changed"] is False


def test_one_run_at_a_time(host, monkeypatch):
    monkeypatch.setattr("ansible_collections.virtuoso.grid.plugins.module_utils._machine.versions._PATIENCE", 0)
    script = (
        "import fcntl, sys; file = open(sys.argv[1], 'ab'); fcntl.lockf(file, fcntl.LOCK_EX, 1, int(sys.argv[2]));"
        "print('held', flush=True); sys.stdin.read()"
    )
    place = str(int(UUID.replace("-", "")[:15], 16))
    argv = ["/usr/bin/python3", "-c", script, os.path.join(host.depot.machines, ".lock"), place]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        assert code(host.capture) == code(host.roll_back) == "machine_busy"
        other.stdin.close()
    assert host.capture(name="tiny")["changed"] is False


# -- the copy of a running disk

ENDED = {"type": libvirt.VIR_DOMAIN_JOB_NONE}
WELL = {"type": libvirt.VIR_DOMAIN_JOB_COMPLETED}


def going(done):
    return {"type": libvirt.VIR_DOMAIN_JOB_UNBOUNDED, "disk_processed": done, "disk_total": 100}


def refused(number):
    exc = libvirt.libvirtError("no")
    exc.err = (number, 0, "no", 0, None, None, None, 0, 0)
    return exc


class Domain:
    """A running domain whose backup goes as the test says; it writes down what was asked of it."""

    def __init__(self, stats=(), begin=None, freeze=1, thaw=(), leftover=None):
        self.asked, self.stats, self.begin, self.freeze, self.thaw, self.job = [], list(stats), begin, freeze, list(thaw), leftover

    def UUIDString(self):
        return UUID

    def XMLDesc(self, flags):
        return "<domain><devices><disk><target dev='vda'/></disk><disk><target dev='vdb'/></disk></devices></domain>"

    def isActive(self):
        return True

    def agentSetResponseTimeout(self, *dummy):
        self.asked.append("patience")

    def fsFreeze(self):
        self.asked.append("freeze")
        if isinstance(self.freeze, Exception):
            raise self.freeze
        return self.freeze

    def fsThaw(self):
        self.asked.append("thaw")
        if self.thaw and "freeze" in self.asked:
            raise self.thaw.pop(0)

    def backupBegin(self, text, checkpoint, flags):
        self.asked.append("begin")
        if self.begin is not None:
            raise self.begin
        self.job = text

    def backupGetXMLDesc(self, flags):
        if self.job is None:
            raise refused(libvirt.VIR_ERR_NO_DOMAIN_BACKUP)
        return self.job

    def jobStats(self, flags):
        if flags:
            return self.stats.pop(0)
        return self.stats.pop(0) if len(self.stats) > 1 else ENDED

    def abortJob(self):
        self.asked.append("abort")
        self.job = None


class Events:
    """Events that come at once."""

    def of(self, uuid):
        class Always(threading.Event):
            def wait(self, timeout=None):
                return True

        return contextlib.nullcontext(Always())


def copy(domain, agent=True, timeout=5):
    told = []
    kind = backup.copy(domain, Events(), "/depot/disk.qcow2", timeout, agent, lambda *args: told.append(args))
    return kind, told


def test_the_backup_is_of_the_root_disk_only():
    tree = domain_xml.parse(Domain().XMLDesc(0))
    text = backup.description(tree, "/a & b/disk.qcow2")
    assert backup.targets(text) == ["/a & b/disk.qcow2"] and 'name="vdb" backup="no"' in text and 'type="qcow2"' in text


def test_frozen_only_while_the_copy_begins():
    domain = Domain([going(10), going(50), WELL])
    assert copy(domain) == ("filesystems", [(10, 100), (50, 100)])
    assert domain.asked == ["patience", "thaw", "freeze", "begin", "thaw"]


def test_a_guest_without_an_agent():
    domain = Domain([WELL])
    assert copy(domain, agent=False)[0] == "crash" and domain.asked == ["begin"]


@pytest.mark.parametrize("freeze", [0, refused(libvirt.VIR_ERR_AGENT_UNRESPONSIVE)])
def test_an_agent_that_does_not_freeze_is_thawed_all_the_same(freeze):
    domain = Domain([WELL], freeze=freeze)
    assert copy(domain)[0] == "crash" and domain.asked[-2:] == ["begin", "thaw"]


def test_a_guest_is_thawed_when_the_copy_can_not_begin():
    domain = Domain(begin=refused(libvirt.VIR_ERR_OPERATION_INVALID))
    assert code(copy, domain) == "machine_busy" and domain.asked[-1] == "thaw"
    domain = Domain(begin=refused(libvirt.VIR_ERR_OPERATION_UNSUPPORTED))
    assert code(copy, domain) == "capture_unsupported" and domain.asked[-1] == "thaw"


def test_an_agent_that_thaws_at_the_third_try():
    domain = Domain([WELL], thaw=[refused(libvirt.VIR_ERR_AGENT_UNRESPONSIVE)] * 2)
    assert copy(domain)[0] == "filesystems" and domain.asked.count("thaw") == 4


def test_an_agent_that_never_thaws_is_told(monkeypatch):
    monkeypatch.setattr(backup, "_THAW_PATIENCE", 0)
    domain = Domain([WELL], thaw=[refused(libvirt.VIR_ERR_AGENT_UNRESPONSIVE)] * 5)
    assert code(copy, domain) == "guest_frozen"


@pytest.mark.parametrize("end", [{"type": libvirt.VIR_DOMAIN_JOB_FAILED, "errmsg": "No space left on device"}, {"type": libvirt.VIR_DOMAIN_JOB_CANCELLED}])
def test_a_copy_that_fails(end):
    domain = Domain([going(10), end])
    assert code(copy, domain) == "capture_failed" and domain.job is None


def test_a_copy_that_takes_too_long_is_ended():
    domain = Domain([going(1), going(2), going(3), WELL])
    assert code(copy, domain, timeout=0) == "timed_out" and domain.asked[-1] == "abort" and domain.job is None


def test_what_a_killed_run_left():
    tree = domain_xml.parse(Domain().XMLDesc(0))
    left = Domain(leftover=backup.description(tree, "/depot/images/.staging/capture-x/disk.qcow2"))
    assert backup.abandoned(left, "/depot/images/.staging/capture-x")
    assert not backup.abandoned(left, "/depot/images/.staging/capture-") and not backup.abandoned(Domain(), "/depot")
    backup.abort(left)
    assert left.job is None
    nothing = Domain()
    backup.abort(nothing)
    assert nothing.asked == []
