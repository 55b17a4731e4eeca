# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables of a layer that is still being received, which name only blocks that were received and verified (pure).

A layer's file has its final form from the first byte on, except for its second-level tables, the last thing before the
data. With the tables made here in their place, the file can be put between a pager's cache and its source: the pager
reads from the source what they don't name.
"""

from __future__ import annotations

import array
import sys
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.index import BLOCK, ZERO, Index
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.layout import (
    COPIED,
    ENTRIES,
    READS_AS_ZEROS,
    Layout,
)


class View:
    """The second-level tables of one layer's file; ``at`` is their offset in it."""

    def __init__(self, index: Index, layout: Layout, hidden: t.Container[int] = ()) -> None:
        """:param hidden: numbers of blocks that layers above this one hold: this layer's must not be seen."""
        self._offsets = layout.offsets
        self._hidden = hidden
        second = sorted({number // ENTRIES for number in index.blocks})
        self._place = {entry: place * ENTRIES for place, entry in enumerate(second)}
        self._words = array.array("Q", bytes(8 * ENTRIES * len(second)))
        self.at = layout.data_at - len(second) * BLOCK
        end = -(-index.virtual_size // BLOCK)
        for entry in second:
            for number in range(entry * ENTRIES, min((entry + 1) * ENTRIES, end)):
                # In the lowest layer a block that no layer holds reads as zeros
                zeros = index.blocks[number] == ZERO if number in index.blocks else index.parent is None
                if zeros and number not in hidden:
                    self._words[self._word(number)] = READS_AS_ZEROS

    def _word(self, number: int) -> int:
        return self._place[number // ENTRIES] + number % ENTRIES

    def show(self, numbers: t.Iterable[int]) -> None:
        """Name these blocks: they were received."""
        for number in numbers:
            if number not in self._hidden:
                self._words[self._word(number)] = self._offsets[number] | COPIED

    def tables(self) -> bytes:
        """The tables' bytes."""
        words = self._words[:]
        if sys.byteorder == "little":
            words.byteswap()
        return words.tobytes()
