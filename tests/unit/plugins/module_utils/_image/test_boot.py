# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a boot reads: the record's file, how two become one, and which blocks come first."""

from __future__ import annotations

import os

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store import boot
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.boot_store import boot_record, record_boot
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.index import BLOCK

from .test_transfer import Wire, noise


def test_a_record_keeps_the_order():
    numbers = [7, 8, 9, 2, 3, 100]
    assert boot.runs_of(numbers) == [[7, 3], [2, 2], [100, 1]]
    assert boot.parse(boot.encode(numbers)) == numbers
    assert boot.parse(b"[[5,2],[6,2]]") == [5, 6, 7], "no block twice"
    assert len(boot.parse(b"[[0,4000],[9000,4000]]")) == boot.MOST


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"{}",
        b"[1]",
        b'[["0",1]]',
        b"[[-1,1]]",
        b"[[0,0]]",
        b"[[true,1]]",
        b"[[0,1,2]]",
        b"[[0,5000]]",
        b"[[0.5,1]]",
        b"[" * 10**5,
    ],
)
def test_what_is_no_record(text):
    with pytest.raises(GridError) as caught:
        boot.parse(text)
    assert caught.value.code == "invalid_record"


def test_a_cache_tells_the_order_of_its_clusters():
    def extent(start, length, offset=None, data=True):
        return {
            "start": start * BLOCK,
            "length": length * BLOCK,
            "present": True,
            "data": data,
            **({} if offset is None else {"offset": offset * BLOCK}),
        }

    absent = {"start": 0, "length": BLOCK, "present": False, "data": False}
    assert boot.read_order(
        [absent, extent(1, 2, 20), extent(10, 1, 5), extent(12, 3, data=False), extent(20, 1, 6)]
    ) == [10, 20, 1, 2]


def test_two_records_become_one_with_the_longer_first():
    assert boot.merge([1, 2, 3], [9, 1]) == [1, 2, 3, 9]
    assert boot.merge([9, 1], [1, 2, 3]) == [1, 2, 3, 9]
    assert len(boot.merge(range(boot.MOST), range(5000, 5001))) == boot.MOST


def test_without_a_record_the_beginning_of_the_disk_comes_first():
    assert boot.wanted_first(None, range(10, 5000)) == list(range(10, 10 + boot.FIRST))
    assert boot.wanted_first([30, 5, 12], [5, 11, 30]) == [30, 5, 11], "nor where the record is short"
    record = range(9000, 9000 + boot.FIRST)
    assert boot.wanted_first(record, [*range(10), *record]) == list(record)


def test_records_lie_beside_layers_and_go_with_them(tmp_path, monkeypatch):
    wire = Wire(tmp_path, monkeypatch)
    one = wire.put("1", noise(1, 4))
    two = wire.put("2", {**noise(1, 4), **noise(2, 1, first=20)}, one)
    depot = wire.source
    (base,), top = one["layers"], two["layers"][-1]
    assert boot_record(depot, top) is None
    assert record_boot(depot, base, [3, 1]) and not record_boot(depot, base, [1, 3])
    assert (
        record_boot(depot, top, [3, 1, 20])
        and boot_record(depot, top) == [3, 1, 20]
        and boot_record(depot, base) == [3, 1]
    )
    assert not record_boot(depot, "sha256:" + "0" * 64, [1]), "of a layer that isn't here"
    assert depot.unneeded() == [] and depot.boot_path(top) in depot.files_of(top)
    assert depot.remove(two) == [top] and not any(top.replace(":", "-") in name for name in os.listdir(depot.layers))
    with open(depot.boot_path(base), "wb") as stream:
        stream.write(b"[[nonsense")
    assert boot_record(depot, base) is None
