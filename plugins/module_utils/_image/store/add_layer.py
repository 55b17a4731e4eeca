# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a disk to the next layer of a chain."""

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
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.reference import Manifest
from ansible_collections.virtuoso.grid.plugins.module_utils._progress import Progress


def layer_of_raw(
    path: str, work: str, below: Blocks, parent: str | None, progress: Progress
) -> tuple[str, Made, Index]:
    """The layer that makes the raw disk ``path`` of what ``below`` has; its file is made in the directory ``work``.

    :param parent: digest of the topmost layer below.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        content = scan(descriptor, raw_runs(descriptor), lambda done, total: progress.bytes("digest", done, total))
        size = -(-os.fstat(descriptor).st_size // 512) * 512
        return make_layer(descriptor, content, difference(below, content.blocks, size, parent), work, progress)
    finally:
        os.close(descriptor)


def next_layer(content: Content, whole: bool, below: Index, merged: Blocks, size: int, parent: str) -> Index | None:
    """The index of the layer that makes a disk that was read of what lies below it; ``None`` where nothing differs
    (pure).

    :param whole: whether ``content`` is all of the disk, or only what an overlay gives itself.
    :param below: the topmost layer below.
    :param merged: what a guest sees of it and of those below it.
    :param size: of the disk.
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
    """Write the layer with this index from the disk that was read."""
    encoded = encode(index)
    target = os.path.join(work, "layer.qcow2")
    sources = [(descriptor, content.places)]
    write_layer(target, index, sources, lambda done, total: progress.bytes("write", done, total))
    return digest_of(encoded), Made(target, encoded), index


def manifest_of(named: t.Mapping[str, t.Any], layers: t.Sequence[str], virtual_size: int, size: int) -> Manifest:
    """The manifest of a chain that was just made.

    :param named: ``name``, ``version``, ``user``, ``python``, ``recipe_digest``.
    :param size: bytes of the layers' files.
    """
    return {
        **named,
        "layers": list(layers),
        "virtual_size": virtual_size,
        "size": size,
        "created": datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0).isoformat(),
    }
