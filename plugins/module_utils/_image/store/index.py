# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A layer's index: which blocks of the disk it holds, and their hashes (pure).

The digest of a layer is the SHA-256 of its index. The index names the layer below by digest. So a digest identifies the
content that a guest sees and the chain that it is made of, not the way a file stores it. ``docs/images.md`` describes
the format.
"""

from __future__ import annotations

import array
import dataclasses
import hashlib
import struct
import sys
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.header import MAX_VIRTUAL_SIZE

BLOCK = 2**16
"""Bytes of a block: the cluster size of the qcow2 files, so that a block is a cluster."""

HASH_SIZE = 32
ZERO = bytes(HASH_SIZE)
"""In place of a hash: the block reads as zeros and hides what a lower layer has there."""

_MAGIC = b"VIRTIDX\x01"
# magic, bytes of a block, whether there is a layer below, its digest, bytes of the disk, number of blocks
_HEAD = struct.Struct(">8sII32sQQ")
_NUMBER = 8
MAX_BLOCKS = 2**24

Blocks = t.Dict[int, bytes]
"""Number of each block (its offset on the disk divided by BLOCK) in ascending order, with its SHA-256 or ZERO."""


@dataclasses.dataclass(frozen=True)
class Index:
    """``virtual_size`` is the disk's in bytes; ``parent`` the digest of the layer below."""

    virtual_size: int
    parent: str | None
    blocks: Blocks

    @property
    def data(self) -> list[int]:
        """Numbers of the blocks that the layer's file holds."""
        return [number for number, found in self.blocks.items() if found != ZERO]

    @property
    def zeros(self) -> list[int]:
        """Numbers of the blocks that read as zeros in place of what lower layers have."""
        return [number for number, found in self.blocks.items() if found == ZERO]


def block_hash(block: bytes | memoryview) -> bytes:
    """The hash of a whole block; the last block of a disk is padded with zeros."""
    return hashlib.sha256(block).digest()


def encode(index: Index) -> bytes:
    """The index as it lies in a file: a head, the numbers, the hashes, all big-endian."""
    numbers = array.array("Q", index.blocks)
    if sys.byteorder == "little":
        numbers.byteswap()
    parent = bytes.fromhex(index.parent[len("sha256:") :]) if index.parent else ZERO
    head = _HEAD.pack(_MAGIC, BLOCK, 1 if index.parent else 0, parent, index.virtual_size, len(index.blocks))
    return head + numbers.tobytes() + b"".join(index.blocks.values())


def digest_of(encoded: bytes) -> str:
    """The digest of the layer with this index."""
    return "sha256:" + hashlib.sha256(encoded).hexdigest()


def _bad(why: str) -> GridError:
    return GridError(
        "layer_corrupted",
        f"the layer's index {why}",
        remedy="Remove the layer's files where they came from, and run the module image there, which makes it again",
    )


def decode(encoded: bytes, digest: str) -> Index:
    """Read and check an index from an untrusted place.

    :param digest: of the layer that the index must belong to.
    :raises GridError: ``layer_corrupted`` where it is another layer's, or contradicts itself.
    """
    if digest_of(encoded) != digest:
        raise _bad(f"is not that of {digest}")
    if len(encoded) < _HEAD.size:
        raise _bad("is cut off")
    magic, block, has_parent, parent, virtual_size, count = _HEAD.unpack_from(encoded)
    if magic != _MAGIC or block != BLOCK or has_parent not in (0, 1):
        raise _bad("is of another kind")
    if count > MAX_BLOCKS or len(encoded) != _HEAD.size + count * (_NUMBER + HASH_SIZE):
        raise _bad("has not the length that it says")
    if not 0 < virtual_size <= MAX_VIRTUAL_SIZE or virtual_size % 512:
        raise _bad("is of an impossible disk")
    numbers = array.array("Q")
    numbers.frombytes(encoded[_HEAD.size : _HEAD.size + count * _NUMBER])
    if sys.byteorder == "little":
        numbers.byteswap()
    _judge_numbers(numbers, virtual_size)
    at = _HEAD.size + count * _NUMBER
    hashes = (encoded[place : place + HASH_SIZE] for place in range(at, len(encoded), HASH_SIZE))
    index = Index(virtual_size, "sha256:" + parent.hex() if has_parent else None, dict(zip(numbers, hashes)))
    if not has_parent and (parent != ZERO or ZERO in index.blocks.values()):
        raise _bad("hides blocks of a layer that it doesn't name")
    return index


def _judge_numbers(numbers: t.Sequence[int], virtual_size: int) -> None:
    if any(after <= before for before, after in zip(numbers, numbers[1:])):
        raise _bad("is not in order")
    if numbers and numbers[-1] * BLOCK >= virtual_size:
        raise _bad("has blocks beyond the end of the disk")


def merge(chain: t.Sequence[Index]) -> Blocks:
    """The hashes of the blocks that a guest sees of a chain, without those that read as zeros.

    :param chain: the indexes, the lowest first.
    """
    seen: Blocks = {}
    for index in chain:
        # Blocks that a smaller disk in between cut off don't come back with a larger one above it
        seen = {number: found for number, found in seen.items() if number * BLOCK < index.virtual_size}
        seen.update(index.blocks)
    return {number: found for number, found in sorted(seen.items()) if found != ZERO}


def difference(below: Blocks, content: Blocks, virtual_size: int, parent: str | None) -> Index:
    """The index of a layer that turns ``below`` into ``content``; equal blocks are left out.

    :param below: what a guest sees of the chain below. :param content: hashes of all blocks that don't read as zeros.
    :param virtual_size: bytes of the disk. :param parent: digest of the layer below.
    """
    changed = {number: found for number, found in content.items() if below.get(number) != found}
    changed.update((number, ZERO) for number in below if number not in content and number * BLOCK < virtual_size)
    return Index(virtual_size, parent, dict(sorted(changed.items())))
