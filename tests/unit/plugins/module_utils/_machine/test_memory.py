# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The head of the file with a hibernated machine's memory, and what is refused."""

from __future__ import annotations

import subprocess

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core import memory

UUID = "5f0d5b1e-6c1c-4f3a-9c0f-2d6a1f0e8b11"
DISK = {"size": 200000, "mtime_ns": 1700000000000000001}
HEAD = {"uuid": UUID, "name": "web1", "generation": 3, "disk": DISK, "compressed": 1000}


def code(call, *args):
    with pytest.raises(GridError) as caught:
        call(*args)
    return caught.value.code


def test_a_head_is_read_as_it_was_written():
    data = memory.pack(HEAD)
    assert len(data) == memory.HEAD_SIZE
    assert memory.unpack(data, memory.HEAD_SIZE + 1000) == {"format": memory.FORMAT, **HEAD}


def test_the_file_is_a_zstd_stream_whose_head_is_skipped(tmp_path):
    stream = subprocess.run(["zstd", "-q", "-c"], input=b"saved" * 1000, stdout=subprocess.PIPE, check=True).stdout
    file = tmp_path / "memory.zst"
    file.write_bytes(memory.pack({**HEAD, "compressed": len(stream)}) + stream)
    assert subprocess.run(["zstd", "-dc", str(file)], stdout=subprocess.PIPE, check=True).stdout == b"saved" * 1000


@pytest.mark.parametrize("size", [memory.HEAD_SIZE + 999, memory.HEAD_SIZE + 1001, memory.HEAD_SIZE])
def test_a_file_that_is_cut_off_is_told_before_it_is_read(size):
    assert code(memory.unpack, memory.pack(HEAD), size) == "hibernation_invalid"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * memory.HEAD_SIZE,
        memory.pack(HEAD)[:-1],
        memory.pack(HEAD).replace(b"{", b"[", 1),
        memory.pack({"compressed": 1000}),
        memory.pack({**HEAD, "format": 2}),
        memory.pack({**HEAD, "compressed": "1000"}),
    ],
)
def test_another_kind_of_file(data):
    assert code(memory.unpack, data, memory.HEAD_SIZE + 1000) == "hibernation_invalid"


def test_a_head_that_is_too_long():
    assert code(memory.pack, {**HEAD, "layers": ["x" * memory.HEAD_SIZE]}) == "hibernation_invalid"


@pytest.mark.parametrize(
    "expected, changes",
    [
        (None, {}),
        ("hibernation_foreign", {"uuid": "0b8ec5a5-2a6d-4b5a-8f3a-4f5a3f3f7a10"}),
        ("hibernation_stale", {"generation": 2}),
        ("hibernation_stale", {"generation": 4}),
        ("hibernation_stale", {"disk": {**DISK, "mtime_ns": 1}}),
        ("hibernation_stale", {"disk": {**DISK, "size": 1}}),
        ("hibernation_stale", {"disk": None}),
    ],
)
def test_whose_memory_it_is(expected, changes):
    call = (memory.check_fits, {**HEAD, **changes}, UUID, 3, DISK)
    if expected is None:
        memory.check_fits(*call[1:])
    else:
        assert code(*call) == expected


def test_a_disk_that_is_gone_fits_no_memory():
    assert code(memory.check_fits, HEAD, UUID, 3, None) == "hibernation_stale"


@pytest.mark.parametrize(
    "start, whole",
    [(b"LibvirtQemudSave\0\0", True), (b"LibvirtQemudPart", False), (b"", False), (b"LibvirtQemud", False)],
)
def test_whether_libvirt_saved_all(start, whole):
    assert memory.is_saved(start) is whole
