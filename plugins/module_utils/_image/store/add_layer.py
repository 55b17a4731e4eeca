# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes a layer, and the manifest of its chain, from a disk that was read."""

from __future__ import annotations

import datetime
import os
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.content import (
    Content,
    raw_runs,
    scan,
    write_layer,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.depot import Made
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.index import (
    BLOCK,
    Blocks,
    Index,
    difference,
    digest_of,
    encode,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.reference import Manifest, Named
from ansible_collections.virtuoso.grid.plugins.module_utils._progress import Progress


def layer_of_raw(
    path: str, work: str, below: Blocks, parent: str | None, progress: Progress
) -> tuple[str, Made, Index]:
    """Make the layer that turns ``below`` into the raw disk ``path``.

    :param work: a directory for the layer's file.
    :param below: what a guest sees of the chain below. :param parent: digest of its topmost layer.
    :returns: digest, files and index of the layer.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        content = scan(descriptor, raw_runs(descriptor), lambda done, total: progress.bytes("digest", done, total))
        size = -(-os.fstat(descriptor).st_size // 512) * 512
        return make_layer(descriptor, content, difference(below, content.blocks, size, parent), work, progress)
    finally:
        os.close(descriptor)


def next_layer(content: Content, whole: bool, below: Index, merged: Blocks, size: int, parent: str) -> Index | None:
    """The index of the layer that turns the chain below into a disk that was read; ``None`` where nothing differs
    (pure).

    :param whole: whether ``content`` is the whole disk, or only what an overlay holds itself.
    :param below: the topmost layer below.
    :param merged: what a guest sees of the chain below.
    :param size: bytes of the disk.
    :param parent: digest of the topmost layer below.
    """
    blocks = content.blocks
    if not whole:
        kept = {
            number: found for number, found in merged.items() if number not in content.zeros and number * BLOCK < size
        }
        blocks = {**kept, **content.blocks}
    index = difference(merged, blocks, size, parent)
    return index if index.blocks or size != below.virtual_size else None


def make_layer(
    descriptor: int, content: Content, index: Index, work: str, progress: Progress
) -> tuple[str, Made, Index]:
    """Write the layer with this index from the disk that was read.

    :returns: digest, files and index of the layer.
    """
    encoded = encode(index)
    target = os.path.join(work, "layer.qcow2")
    sources = [(descriptor, content.places)]
    write_layer(target, index, sources, lambda done, total: progress.bytes("write", done, total))
    return digest_of(encoded), Made(target, encoded), index


def manifest_of(named: Named, layers: t.Sequence[str], virtual_size: int, size: int) -> Manifest:
    """The manifest of a chain that was made just now.

    :param layers: digests, the lowest first. :param virtual_size: bytes of the disk.
    :param size: bytes of the layers' files.
    """
    return {
        "name": named["name"],
        "version": named["version"],
        "recipe_digest": named["recipe_digest"],
        "user": named["user"],
        "python": named["python"],
        "layers": list(layers),
        "virtual_size": virtual_size,
        "size": size,
        "created": datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0).isoformat(),
    }
