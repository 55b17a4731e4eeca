# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import ctypes
import errno
import os

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._image.transfer.direct import ALIGNED, Buffers, Direct

SIZE = 4 * ALIGNED


def test_buffers_are_aligned_and_used_again():
    buffers = Buffers(SIZE)
    one, other = buffers.take(SIZE), buffers.take(100)
    assert (len(one), len(other)) == (SIZE, 100) and one.obj is not other.obj
    assert ctypes.addressof(ctypes.c_char.from_buffer(one)) % ALIGNED == 0
    memory = other.obj
    buffers.give(other)
    assert buffers.take(SIZE).obj is memory
    assert buffers.take(SIZE).obj is not memory


def test_what_is_not_from_here_is_left_alone():
    buffers = Buffers(SIZE)
    for foreign in (b"x", memoryview(bytearray(SIZE))):
        buffers.give(foreign)
    assert len(buffers.take(SIZE)) == SIZE


@pytest.fixture
def file(tmp_path):
    path = str(tmp_path / "file")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    yield path, descriptor
    os.close(descriptor)


def filled():
    view = Buffers(SIZE).take(SIZE)
    view[:] = os.urandom(SIZE)
    return view


def read(path):
    with open(path, "rb") as stream:
        return stream.read()


def test_what_is_aligned_goes_past_the_cache(file, monkeypatch):
    path, descriptor = file
    direct, view = Direct(path, descriptor, True), filled()
    assert direct.past, "the file system of this test can't do without the cache"
    real, used = os.pwrite, []
    monkeypatch.setattr(os, "pwrite", lambda number, *arguments: (used.append(number), real(number, *arguments))[1])
    direct.write(view, SIZE)
    assert used and descriptor not in used
    assert read(path) == bytes(SIZE) + bytes(view)
    direct.close()
    direct.write(view, 0)
    assert used[-1] == descriptor and read(path) == bytes(view) * 2


@pytest.mark.parametrize(("start", "end", "to"), [(0, 100, 0), (0, ALIGNED, 7), (1, ALIGNED + 1, 0)])
def test_what_is_not_aligned_is_written_all_the_same(file, start, end, to):
    path, descriptor = file
    direct, view = Direct(path, descriptor, True), filled()
    direct.write(view[start:end], to)
    direct.close()
    assert read(path)[to:] == bytes(view[start:end])


def test_a_file_system_that_cannot_is_written_through_the_cache(file, monkeypatch):
    path, descriptor = file
    direct, view, real = Direct(path, descriptor, True), filled(), os.pwrite

    def refuse(number, *arguments):
        if number != descriptor:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(number, *arguments)

    monkeypatch.setattr(os, "pwrite", refuse)
    direct.write(view, 0)
    assert not direct.past and read(path) == bytes(view)


def test_a_full_disk_is_told(file, monkeypatch):
    path, descriptor = file
    direct = Direct(path, descriptor, True)

    def full(*dummy):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space left"):
        direct.write(filled(), 0)
    direct.close()


def test_not_wanted(file):
    path, descriptor = file
    assert not Direct(path, descriptor, False).past
