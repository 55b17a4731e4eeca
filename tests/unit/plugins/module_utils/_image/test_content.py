# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is read of disks, and how it is copied."""

from __future__ import annotations

import errno
import os
import subprocess

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store import content
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.content import Run
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.index import BLOCK, block_hash

from .making import MIB, block, qemu_img, write_raw


@pytest.fixture(name="opened")
def _opened(tmp_path):
    """Opens files for reading, until the test is over."""
    descriptors = []

    def opened(path):
        descriptors.append(os.open(path, os.O_RDONLY))
        return descriptors[-1]

    yield opened
    for descriptor in descriptors:
        os.close(descriptor)


def flat(runs):
    return [number for run in runs for number in range(run.number, run.number + run.count)]


def test_holes_are_not_read(tmp_path, opened):
    raw = write_raw(tmp_path / "raw", 2**40, {0: block("a"), 1: block("b"), 5000: block("c"), 2**24 - 1: block("d")})
    runs = list(content.raw_runs(opened(raw)))
    assert flat(runs) == [0, 1, 5000, 2**24 - 1]
    assert all(run.at == run.number * BLOCK for run in runs)


@pytest.mark.parametrize("size", [512, BLOCK - 512, BLOCK, 10 * BLOCK + 512])
def test_a_disk_without_content(tmp_path, opened, size):
    assert list(content.raw_runs(opened(write_raw(tmp_path / "raw", size, {})))) == []


def test_data_that_begins_and_ends_within_blocks(tmp_path, opened):
    """Extents of a file system need not be aligned: no block is given twice, none is lost."""
    with open(tmp_path / "raw", "wb") as stream:
        for at in (4096, BLOCK - 4096, 3 * BLOCK + 4096, 3 * BLOCK + 40960):
            stream.seek(at)
            stream.write(b"x" * 4096)
        stream.truncate(6 * BLOCK)
    runs = flat(content.raw_runs(opened(tmp_path / "raw")))
    assert runs == sorted(set(runs)) and {0, 3} <= set(runs)
    found = content.scan(opened(tmp_path / "raw"), content.raw_runs(opened(tmp_path / "raw")))
    assert list(found.blocks) == [0, 3]


def test_scan(tmp_path, opened):
    raw = write_raw(tmp_path / "raw", 10 * BLOCK + 512, {1: block("a"), 2: bytes(BLOCK), 10: block("odd")})
    told = []
    found = content.scan(
        opened(raw), [Run(0, 4, 0), Run(10, 1, 10 * BLOCK), Run(5, 2, None)], lambda *args: told.append(args)
    )
    assert found.blocks == {1: block_hash(block("a")), 10: block_hash((b"odd" + b"o" * 509).ljust(BLOCK, b"\0"))}
    assert found.places == {1: BLOCK, 10: 10 * BLOCK} and found.zeros == {0, 2, 3, 5, 6}
    assert told[-1] == (5 * BLOCK, 5 * BLOCK)


def test_long_runs_are_read_piece_by_piece(tmp_path, opened):
    raw = write_raw(tmp_path / "raw", 200 * BLOCK, {number: block(str(number)) for number in range(200)})
    found = content.scan(opened(raw), [Run(0, 200, 0)])
    assert found.blocks == {number: block_hash(block(str(number))) for number in range(200)}


def test_an_overlay_gives_what_the_raw_disk_has(tmp_path, opened):
    """What an overlay holds itself, put on what lies below, is what qemu-img sees of the whole."""
    size = 4 * MIB + 512
    base = write_raw(tmp_path / "base", size, {0: block("a"), 1: block("b"), 30: block("c"), 64: block("odd")})
    overlay, raw = tmp_path / "overlay", tmp_path / "raw"
    qemu_img("create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, overlay)
    commands = [
        "write -P 1 65536 1000",
        "write -z 1966080 65536",
        "write -P 2 3000000 200000",
        f"write -P 3 {4 * MIB} 512",
        "discard 0 65536",
    ]
    subprocess.run(
        ["qemu-io", "-f", "qcow2", *(word for text in commands for word in ("-c", text)), overlay],
        check=True,
        capture_output=True,
    )
    qemu_img("convert", "-f", "qcow2", "-O", "raw", overlay, raw)
    whole = content.scan(opened(raw), content.raw_runs(opened(raw)))
    below = content.scan(opened(base), content.raw_runs(opened(base)))
    own = content.scan(opened(overlay), content.overlay_runs(str(overlay)))
    seen = {number: found for number, found in {**below.blocks, **own.blocks}.items() if number not in own.zeros}
    assert seen == whole.blocks
    assert own.zeros and len(own.blocks) < len(whole.blocks) + 3


@pytest.mark.parametrize("at", [0, 4096])
@pytest.mark.parametrize("options", [["-o", "cluster_size=4096"], ["-o", "extended_l2=on,cluster_size=128k"]])
def test_overlays_with_other_clusters_are_left_to_qemu_img(tmp_path, options, at):
    path = tmp_path / "overlay"
    qemu_img("create", "-q", "-f", "qcow2", *options, path, "1M")
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", f"write {at} 4096", path], check=True, capture_output=True)
    assert content.overlay_runs(str(path)) is None


def test_compressed_clusters_are_left_to_qemu_img(tmp_path):
    raw, path = write_raw(tmp_path / "raw", MIB, {1: block("a")}), tmp_path / "layer"
    qemu_img("convert", "-c", "-f", "raw", "-O", "qcow2", raw, path)
    assert content.overlay_runs(str(path)) is None


def test_coalesce():
    moves = [(0, 100, 10), (10, 110, 10), (20, 130, 10), (30, 140, 10), (50, 150, 10)]
    assert list(content.coalesce(moves)) == [(0, 100, 20), (20, 130, 20), (50, 150, 10)]
    assert list(content.coalesce([])) == []


@pytest.mark.parametrize("refused", [None, errno.EXDEV, errno.EOPNOTSUPP])
def test_copy_range(tmp_path, opened, monkeypatch, refused):
    if refused is not None:

        def refuse(*dummy):
            raise OSError(refused, os.strerror(refused))

        monkeypatch.setattr(os, "copy_file_range", refuse)
    source = write_raw(tmp_path / "source", 3 * MIB + 7, {0: block("a"), 17: block("b"), 48: b"end of it"})
    with open(tmp_path / "target", "wb") as stream:
        content.copy_range(opened(source), BLOCK, stream.fileno(), 5, 3 * MIB)
    wanted = open(source, "rb").read()[BLOCK:]
    assert (tmp_path / "target").read_bytes()[5:] == wanted


def test_a_copy_that_fails_is_told(tmp_path, opened, monkeypatch):
    def full(*dummy):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "copy_file_range", full)
    source = write_raw(tmp_path / "source", MIB, {0: block("a")})
    with open(tmp_path / "target", "wb") as stream, pytest.raises(OSError, match="No space"):
        content.copy_range(opened(source), 0, stream.fileno(), 0, MIB)


def test_verify(tmp_path, opened):
    raw = write_raw(tmp_path / "raw", MIB, {1: block("a"), 2: block("b"), 3: block("c")})
    found = content.scan(opened(raw), content.raw_runs(opened(raw)))
    assert content.verify(opened(raw), found.places, found.blocks) == []
    with open(raw, "r+b") as stream:
        stream.seek(2 * BLOCK + 100)
        stream.write(b"!")
        stream.truncate(3 * BLOCK)
    wrong = content.verify(opened(raw), found.places, found.blocks)
    assert wrong == [2, 3]
    error = content.damaged("sha256:x", wrong, "host a")
    assert isinstance(error, GridError) and error.code == "layer_corrupted" and error.details["blocks"] == [2, 3]
