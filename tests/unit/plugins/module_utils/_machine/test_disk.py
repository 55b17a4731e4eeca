# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine's files: atomic, resumable, locked."""

from __future__ import annotations

import os
import pathlib
import shutil
import stat
import struct
import subprocess
import sys

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.files import disk

UUID = "5f0d5b1e-6c1c-4f3a-9c0f-2d6a1f0e8b11"
MIB = 2**20


def qcow2(path, size=MIB, backing=b"", magic=b"QFI\xfb", version=3):
    """A file that begins like a qcow2 file with clusters of 64 KiB."""
    head = struct.pack(
        ">4sIQIIQIIQQIIQQQQII",
        magic,
        version,
        112 if backing else 0,
        len(backing),
        16,
        size,
        0,
        1,
        3 << 16,
        1 << 16,
        1,
        0,
        0,
        0,
        0,
        0,
        4,
        104,
    )
    path.write_bytes(head + bytes(8) + backing)
    return str(path)


@pytest.fixture(name="depot")
def _depot(tmp_path):
    return disk.Depot(str(tmp_path))


def make(path):
    with open(path, "wb") as file:
        file.write(b"disk")


def test_qcow2_headers(tmp_path):
    assert disk.read_qcow2(qcow2(tmp_path / "a", 5 * MIB, b"/layer")) == disk.Disk(5 * MIB, "/layer")
    assert disk.read_qcow2(qcow2(tmp_path / "b")) == disk.Disk(MIB, None)
    assert disk.read_qcow2(str(tmp_path / "none")) is None


@pytest.mark.parametrize("wrong", [{"magic": b"raw!"}, {"version": 1}, {"backing": b"x" * 1024}])
def test_what_is_no_qcow2(tmp_path, wrong):
    with pytest.raises(GridError) as caught:
        disk.read_qcow2(qcow2(tmp_path / "a", **wrong))
    assert caught.value.code == "disk_invalid"
    (tmp_path / "short").write_bytes(b"QFI")
    with pytest.raises(GridError):
        disk.read_qcow2(str(tmp_path / "short"))


def layers(depot, *digests):
    """Layers that lie on each other, the lowest first."""
    os.makedirs(os.path.dirname(depot.layer(digests[0])), exist_ok=True)
    below = b""
    for digest in digests:
        below = os.path.basename(qcow2(pathlib.Path(depot.layer(digest)), backing=below)).encode()


def test_a_chain_of_layers(depot):
    digests = ["sha256:" + digit * 64 for digit in "abc"]
    layers(depot, *digests)
    paths = [depot.layer(digest) for digest in digests]
    assert depot.chain(digests[2]) == (list(reversed(paths)), None)
    assert depot.chain(None) == ([], None)
    os.unlink(paths[0])
    assert depot.chain(digests[2]) == ([paths[2], paths[1]], digests[0])
    assert depot.chain("sha256:" + "0" * 64) == ([], "sha256:" + "0" * 64)


@pytest.mark.parametrize("backing", [b"/etc/passwd", b"json:{}", b"nbd://198.18.0.1/x", b"../../x.qcow2"])
def test_a_layer_that_lies_on_something_else(depot, backing):
    digest = "sha256:" + "a" * 64
    layers(depot, digest)
    qcow2(pathlib.Path(depot.layer(digest)), backing=backing)
    with pytest.raises(GridError) as caught:
        depot.chain(digest)
    assert caught.value.code == "disk_invalid"


def test_layers_in_a_circle(depot):
    digests = ["sha256:" + digit * 64 for digit in "ab"]
    layers(depot, *digests)
    qcow2(pathlib.Path(depot.layer(digests[0])), backing=os.path.basename(depot.layer(digests[1])).encode())
    with pytest.raises(GridError) as caught:
        depot.chain(digests[1])
    assert caught.value.code == "disk_invalid"


def test_a_layers_name_counts_and_not_where_a_file_says_it_is(depot):
    digests = ["sha256:" + digit * 64 for digit in "ab"]
    layers(depot, *digests)
    qcow2(pathlib.Path(depot.layer(digests[1])), backing=b"/tmp/" + os.path.basename(depot.layer(digests[0])).encode())
    assert depot.chain(digests[1]).paths == [depot.layer(digests[1]), depot.layer(digests[0])]


def test_creation_leaves_files_for_their_owner_and_nothing_else(depot):
    disk.create(depot, UUID, lambda path: disk.write_whole(path, b"disk"), b"seed")
    assert sorted(os.listdir(depot.machine(UUID))) == ["disk.qcow2", "seed.iso"]
    assert stat.S_IMODE(os.stat(depot.disk(UUID)).st_mode) == stat.S_IMODE(os.stat(depot.seed(UUID)).st_mode) == 0o600
    assert os.listdir(depot.staging) == []


def test_a_failed_creation_leaves_nothing(depot):
    def full(path):
        make(path)
        raise OSError(28, "No space left on device", path)

    with pytest.raises(OSError):
        disk.create(depot, UUID, full, b"seed")
    assert os.listdir(depot.staging) == [] and not os.path.exists(depot.machine(UUID))


def test_the_remains_of_a_killed_run_are_replaced(depot):
    depot.prepare()
    os.mkdir(os.path.join(depot.staging, UUID))
    make(os.path.join(depot.staging, UUID, "half"))
    disk.create(depot, UUID, make, b"seed")
    assert sorted(os.listdir(depot.machine(UUID))) == ["disk.qcow2", "seed.iso"]
    disk.replace_seed(depot, UUID, b"other")
    with open(depot.seed(UUID), "rb") as file:
        assert file.read() == b"other"
    disk.remove(depot, UUID)
    disk.remove(depot, UUID)
    assert sorted(os.listdir(depot.machines)) == [".staging"]


def test_depot_must_be_there(tmp_path):
    with pytest.raises(GridError) as caught:
        disk.Depot(str(tmp_path / "none")).require()
    assert caught.value.code == "depot_missing"


def test_overlays_of_one_kind_are_made_by_one_process(depot, tmp_path, monkeypatch):
    layer = str(tmp_path / "layer.qcow2")
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", layer, str(MIB)], check=True)
    calls = []
    real = disk.command
    monkeypatch.setattr(disk, "command", lambda argv, **rest: calls.append(argv) or real(argv, **rest))
    overlays = disk.Overlays()
    for name, size in (("a", MIB), ("b", MIB), ("c", 2 * MIB)):
        overlays.write(str(tmp_path / name), layer, size)
    assert len(calls) == 2
    assert [disk.read_qcow2(str(tmp_path / name)) for name in "abc"] == [
        disk.Disk(MIB, layer),
        disk.Disk(MIB, layer),
        disk.Disk(2 * MIB, layer),
    ]
    subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", str(tmp_path / "b")], check=True)
    disk.grow_file(str(tmp_path / "b"), 3 * MIB)
    assert disk.read_qcow2(str(tmp_path / "b")).size == 3 * MIB


def test_space(depot):
    disk.create(depot, UUID, lambda path: shutil.copy(qcow2_of(depot), path), b"")
    space = depot.space()
    assert space["disk_allocated"] == 7 * MIB and 0 < space["disk_free"] <= space["disk"]


def qcow2_of(depot):
    return qcow2(pathlib.Path(depot.path) / "template", 7 * MIB)


_HOLD = """
import fcntl, sys
file = open(sys.argv[1], "ab")
fcntl.lockf(file, fcntl.LOCK_EX, 1, int(sys.argv[2]))
print("held", flush=True)
sys.stdin.read()
"""


def test_one_writer_per_machine_over_processes(depot):
    locks = disk.Locks(depot)
    place = int(UUID.replace("-", "")[:15], 16)
    argv = [sys.executable, "-c", _HOLD, os.path.join(depot.machines, ".lock"), str(place)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(GridError) as caught, locks.of(UUID, 0.2):
            pass
        assert caught.value.code == "machine_busy"
        with locks.of("0b8ec5a5-2a6d-4b5a-8f3a-4f5a3f3f7a10", 0):
            pass
        other.kill()
    with locks.of(UUID, 0):
        pass
    locks.close()


def test_a_disk_that_qemu_img_finds_full_is_told_as_full(depot, monkeypatch):
    def full(*dummy, **more):
        raise GridError(
            "disk_failed", "qemu-img ended with code 1", stderr="Could not write qcow2 header: No space left on device"
        )

    monkeypatch.setattr(disk, "command", full)
    with pytest.raises(OSError, match="No space left"):
        disk.create(depot, UUID, lambda path: disk.Overlays().write(path, "/layer", MIB), b"seed")
    assert not os.path.exists(depot.machine(UUID)) and os.listdir(depot.staging) == []


def test_nobody_but_root_can_hold_the_locks(depot):
    depot.prepare()
    path = pathlib.Path(depot.machines) / ".lock"
    # An earlier release made it readable.
    path.touch(0o644)
    path.chmod(0o644)
    disk.Locks(depot).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
