# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The qcow2 files of layers: qemu-img finds nothing wrong, and sees what the raw disk has."""

from __future__ import annotations

import json
import os
import random
import struct

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store import header, layout
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.depot import Depot
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.index import BLOCK, ZERO, Index

from .making import MIB, block, put, qemu_img, same_content

A = bytes([1]) * 32
PARENT = "sha256:" + "5f" * 32


@pytest.mark.parametrize(
    ("size", "numbers"),
    [
        (MIB, []),
        (512, [0]),
        (MIB, [0, 1, 15]),
        (MIB + 512, [3, 16]),
        (3 * 2**30, [0, 8191, 8192, 20000, 49151]),
        (3 * 2**30 + 1536, [16384, 49152]),
        (2**42, [0, 2**26 - 1]),
    ],
)
def test_a_base_layer(tmp_path, size, numbers):
    depot, raw = Depot(str(tmp_path)), tmp_path / "raw"
    made = put(depot, {number: block(f"{number}") for number in numbers}, size, keep=raw)
    path = depot.layer_path(made["layers"][0])
    if size < 2**40:
        same_content(raw, path)
    else:
        qemu_img("check", "-q", "-f", "qcow2", path)
    facts = json.loads(qemu_img("info", "--output=json", "-f", "qcow2", path))
    assert facts["virtual-size"] == size and "backing-filename" not in facts
    assert header.judge(open(path, "rb").read(header.HEAD_SIZE), os.stat(path).st_size, "qcow2") == size
    assert made["virtual_size"] == size and os.stat(path).st_size == made["size"]


def test_a_chain_with_zeros_and_growth(tmp_path):
    depot = Depot(str(tmp_path))
    raws = [tmp_path / f"raw{number}" for number in range(3)]
    base = put(depot, {0: block("a"), 1: block("b"), 15: block("c"), 16: block("odd")}, MIB + 512, keep=raws[0])
    blanked = put(depot, {0: block("a"), 1: block("x")}, MIB + 512, base, raws[1], version="2")
    grown = put(depot, {0: block("a"), 1: block("x"), 20: block("y")}, 2 * MIB + 1024, blanked, raws[2], version="3")
    assert base["layers"] == blanked["layers"][:1] and blanked["layers"] == grown["layers"][:2]
    for raw, made in zip(raws, (base, blanked, grown)):
        same_content(raw, depot.layer_path(made["layers"][-1]))
    assert depot.index(blanked["layers"][-1]).zeros == [15, 16]
    assert list(depot.index(grown["layers"][-1]).blocks) == [20]
    told = json.loads(qemu_img("info", "--output=json", "-f", "qcow2", depot.layer_path(grown["layers"][-1])))
    assert told["backing-filename"] == os.path.basename(depot.layer_path(blanked["layers"][-1]))
    assert told["backing-filename-format"] == "qcow2"


def test_the_same_content_is_the_same_file(tmp_path):
    """Whatever order it was written in, and wherever its holes were."""
    numbers = list(range(40))
    random.Random(1).shuffle(numbers)
    stores = [Depot(str(tmp_path / name)) for name in "ab"]
    blocks = {number: block(f"x{number}") for number in numbers}
    one = put(stores[0], blocks, 4 * MIB)
    two = put(stores[1], {**dict(sorted(blocks.items())), 50: bytes(BLOCK)}, 4 * MIB)
    assert one["layers"] == two["layers"]
    paths = [store.layer_path(one["layers"][0]) for store in stores]
    assert open(paths[0], "rb").read() == open(paths[1], "rb").read()


def read_entry(tables, at):
    return struct.unpack_from(">Q", tables, at)[0]


@pytest.mark.parametrize("count", [0, 1, 32760, 32768, 40000, 70000])
def test_every_cluster_is_counted_once(count):
    """Reasoned about on the tables alone: a layer of so many blocks has several clusters of reference counts."""
    index = Index(8 * 2**30, PARENT, {number: A for number in range(0, count)} | {count + 5: ZERO})
    plan = layout.plan(index)
    total = plan.size // BLOCK
    counts_at, clusters = read_entry(plan.tables, 48), struct.unpack_from(">I", plan.tables, 56)[0]
    refcount_blocks = [read_entry(plan.tables, counts_at + 8 * place) for place in range(clusters * BLOCK // 8)]
    used = [at for at in refcount_blocks if at]
    assert len(used) == -(-total // 32768)
    counts = b"".join(plan.tables[at : at + BLOCK] for at in used)
    assert counts == (b"\0\1" * total).ljust(len(counts), b"\0")
    assert len(plan.tables) == plan.data_at and plan.data_at % BLOCK == 0
    assert list(plan.offsets.values()) == list(range(plan.data_at, plan.size, BLOCK))


def test_reference_counts_that_need_room_for_themselves():
    for others in (0, 32765, 32766, 32767, 32768, 2**28, 2**28 + 1):
        table, blocks = layout._refcount_clusters(others)
        assert blocks * 32768 >= others + table + blocks and table * 8192 >= blocks


def test_zero_blocks_take_no_room():
    plan = layout.plan(Index(MIB, PARENT, {0: ZERO, 5: A}))
    assert list(plan.offsets) == [5] and plan.size == plan.data_at + BLOCK
