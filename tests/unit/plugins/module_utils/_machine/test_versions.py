# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Machines and versions on libvirt's test driver, with real disks: captured at rest, rolled back."""

from __future__ import annotations

import os
import subprocess

import libvirt
import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor import domain_xml, metadata
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.connection import Hypervisor
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.depot import Depot as Store
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.files import disk
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.snapshots import disk_source
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.versions import rollback
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.versions.machines import Versions
from ansible_collections.virtuoso.grid.plugins.module_utils._progress import Progress

from .._image.making import MIB, block, put, qemu_img

UUID = "5f0d5b1e-6c1c-4f3a-9c0f-000000000001"
QUIET = Progress(None)


def domain_of(depot, digest, image="tiny@1"):
    """The XML of a machine on the layer."""
    wanted = {
        "vcpus": 1,
        "memory": 64 * MIB,
        "cpu_shares": None,
        "network": "virtuoso",
        "mac": "52:00:00:00:00:01",
        "display": "none",
        "virtualization": "test",
        "machine_type": "q35",
        "disk_path": depot.disk(UUID),
        "seed_path": depot.seed(UUID),
        "layers": depot.chain(digest).paths,
    }
    spec = {
        "uuid": UUID,
        "name": "web1",
        "owner": "alice",
        "site": "site-a",
        "network": "virtuoso",
        "goal": "balance",
        "user": "debian",
        "python": "/usr/bin/python3",
        "generation": 3,
        "image": {"name": image, "digest": digest},
    }
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
        disk.create(
            self.depot, UUID, lambda new: disk.Overlays().write(new, self.depot.layer(digest), 2 * MIB), b"seed"
        )
        self.domain = self.conn.defineXML(domain_of(self.depot, digest))
        self.locks = disk.Locks(self.depot)

    def versions(self, check=False, discard=False):
        params = {"path": str(self.path), "timeout": 5, "discard": discard}
        return Versions(Hypervisor(self.conn, None), params, None if check else self.locks)

    def capture(self, check=False, **entry):
        return self.versions(check).captured({"name": "web", "machine": "web1", **entry}, QUIET)

    def roll_back(self, check=False, discard=False, **entry):
        return self.versions(check, discard).rolled_back(
            {"name": "tiny", "version": "2", "machine": UUID, **entry}, QUIET
        )

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
    assert (
        {**said, "size": 0} == {**done, "size": 0}
        and done["actions"] == ["capture"]
        and done["consistent"] == "stopped"
    )
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
    qemu_img(
        "create",
        "-q",
        "-f",
        "qcow2",
        "-o",
        "cluster_size=4k",
        "-F",
        "qcow2",
        "-b",
        host.depot.layer(host.first["layers"][0]),
        path,
        2 * MIB,
    )
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
    qemu_img(
        "create", "-q", "-f", "qcow2", "-o", "data_file=" + str(host.path / "data"), host.depot.disk(UUID), 2 * MIB
    )
    with pytest.raises(GridError) as caught:
        disk_source.checked_size(open(host.depot.disk(UUID), "rb").read())
    assert caught.value.code == "disk_invalid"
    os.unlink(host.depot.disk(UUID))
    assert code(host.capture) == "disk_missing"


def test_a_machine_that_was_started_meanwhile(host):
    host.write("write -P 7 0 65536")
    source = disk_source.Resting(
        UUID, host.first["layers"][0], None, None, "stopped", host.depot.disk(UUID), host.depot, host.domain
    )
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
    assert (
        back["actions"] == ["roll back"]
        and host.image()["name"] == "tiny@1"
        and host.chain() == [host.depot.layer(host.first["layers"][0])]
    )
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
    assert on == (host.second if last == "disk" else host.first)["layers"][-1] and (host.content() == before) == (
        last == "chain"
    )
    finished = host.roll_back()
    assert finished["actions"] == (["define"] if last == "disk" else ["roll back"])
    assert host.chain() == host.depot.chain(host.second["layers"][-1]).paths and host.image()["name"] == "tiny@2"
    assert host.roll_back()["changed"] is False


def test_one_run_at_a_time(host, monkeypatch):
    monkeypatch.setattr(
        "ansible_collections.virtuoso.grid.plugins.module_utils._machine.versions.machines._PATIENCE", 0
    )
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
