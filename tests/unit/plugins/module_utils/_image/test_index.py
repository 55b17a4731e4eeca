# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Indexes of layers: one text for one content, and nothing believed that comes from elsewhere."""

from __future__ import annotations

import hashlib
import struct

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store import index
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.index import BLOCK, ZERO, Index

A, B = hashlib.sha256(b"a").digest(), hashlib.sha256(b"b").digest()
PARENT = "sha256:" + "5f" * 32
HEAD = struct.Struct(">8sII32sQQ")


def text(
    magic=b"VIRTIDX\x01",
    block=BLOCK,
    has_parent=0,
    parent=ZERO,
    size=10 * BLOCK,
    numbers=(1, 4),
    hashes=(A, B),
    count=None,
):
    """An index with anything in it."""
    head = HEAD.pack(magic, block, has_parent, parent, size, len(numbers) if count is None else count)
    return head + b"".join(number.to_bytes(8, "big") for number in numbers) + b"".join(hashes)


@pytest.mark.parametrize(
    "value",
    [
        Index(10 * BLOCK, None, {}),
        Index(512, None, {0: A}),
        Index(10 * BLOCK + 512, None, {0: A, 4: B, 10: A}),
        Index(10 * BLOCK, PARENT, {1: ZERO, 2: B}),
        Index(64 * 2**40, PARENT, {2**30 - 1: A}),
    ],
)
def test_round_trip(value):
    encoded = index.encode(value)
    assert index.decode(encoded, index.digest_of(encoded)) == value


def test_the_text_is_as_documented():
    """The format is a promise: a digest must mean the same on all hosts, for ever."""
    assert index.encode(Index(10 * BLOCK, None, {1: A, 4: B})) == text()
    assert index.encode(Index(10 * BLOCK, PARENT, {1: ZERO})) == text(
        has_parent=1, parent=bytes.fromhex("5f" * 32), numbers=[1], hashes=[ZERO]
    )
    assert index.digest_of(b"") == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_data_and_zeros():
    layer = Index(10 * BLOCK, PARENT, {1: ZERO, 2: A, 3: ZERO})
    assert (layer.data, layer.zeros) == ([2], [1, 3])


@pytest.mark.parametrize(
    "hostile",
    [
        b"",
        text()[:20],
        text()[:-1],
        text() + b"\0",
        text(magic=b"VIRTIDX\x02"),
        text(block=512),
        text(has_parent=2),
        text(has_parent=256),
        text(count=2**24 + 1),
        text(count=2**63),
        text(count=1),
        text(count=3),
        text(size=0),
        text(size=10 * BLOCK + 1),
        text(size=2**64 - 512),
        text(size=64 * 2**40 + 512),
        text(numbers=(4, 1)),
        text(numbers=(4, 4)),
        text(numbers=(1, 10)),
        text(numbers=(1, 2**64 - 1)),
        text(numbers=(1, 2**48)),
        text(hashes=(A, ZERO)),
        text(parent=A),
    ],
)
def test_hostile_indexes(hostile):
    with pytest.raises(GridError) as caught:
        index.decode(hostile, index.digest_of(hostile))
    assert caught.value.code == "layer_corrupted" and caught.value.remedy


def test_an_index_under_another_digest():
    with pytest.raises(GridError) as caught:
        index.decode(text(), PARENT)
    assert caught.value.code == "layer_corrupted" and PARENT in str(caught.value)


def test_the_last_block_may_begin_before_the_end():
    whole = text(size=4 * BLOCK + 512)
    assert index.decode(whole, index.digest_of(whole)).blocks == {1: A, 4: B}


def test_merge():
    base = Index(4 * BLOCK, None, {0: A, 1: A, 3: A})
    assert index.merge([]) == {} and index.merge([base]) == base.blocks
    assert index.merge([base, Index(4 * BLOCK, PARENT, {1: ZERO, 2: B, 3: B})]) == {0: A, 2: B, 3: B}


def test_what_a_smaller_disk_cut_off_does_not_come_back():
    chain = [Index(4 * BLOCK, None, {0: A, 3: A}), Index(2 * BLOCK, PARENT, {}), Index(4 * BLOCK, PARENT, {2: B})]
    assert index.merge(chain) == {0: A, 2: B}


def test_difference_undoes_merge():
    below = {0: A, 1: A, 3: A}
    content = {0: A, 1: B, 5: A}
    layer = index.difference(below, content, 8 * BLOCK, PARENT)
    assert layer == Index(8 * BLOCK, PARENT, {1: B, 3: ZERO, 5: A}) and list(layer.blocks) == [1, 3, 5]
    assert index.merge([Index(4 * BLOCK, None, below), layer]) == content


def test_the_same_content_makes_an_empty_layer():
    assert index.difference({0: A}, {0: A}, BLOCK, PARENT).blocks == {}


def test_nothing_is_blanked_beyond_the_end():
    assert index.difference({0: A, 3: A}, {0: A}, 2 * BLOCK, PARENT).blocks == {}
