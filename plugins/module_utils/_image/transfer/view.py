# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a pager may take of a layer that is still coming: tables for its file that name only blocks that came and were
verified (pure).

The file has its final form from the first byte on, but for its second tables, which are the last thing before the data.
With these, in place of the final ones, it can be put between a pager's cache and its source: what it doesn't name is
asked of the source.
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
    """The second tables of one layer's file. ``at`` is where they lie in it."""

    def __init__(self, index: Index, layout: Layout, hidden: t.Container[int] = ()) -> None:
        """:param hidden: numbers of the blocks that layers above this one give: what this one has there nobody may see."""
        self._offsets = layout.offsets
        self._hidden = hidden
        second = sorted({number // ENTRIES for number in index.blocks})
        self._place = {entry: place * ENTRIES for place, entry in enumerate(second)}
        self._words = array.array("Q", bytes(8 * ENTRIES * len(second)))
        self.at = layout.data_at - len(second) * BLOCK
        end = -(-index.virtual_size // BLOCK)
        for entry in second:
            for number in range(entry * ENTRIES, min((entry + 1) * ENTRIES, end)):
                # The lowest layer gives all that no other does
                zeros = index.blocks[number] == ZERO if number in index.blocks else index.parent is None
                if zeros and number not in hidden:
                    self._words[self._word(number)] = READS_AS_ZEROS

    def _word(self, number: int) -> int:
        return self._place[number // ENTRIES] + number % ENTRIES

    def show(self, numbers: t.Iterable[int]) -> None:
        """These blocks are there now."""
        for number in numbers:
            if number not in self._hidden:
                self._words[self._word(number)] = self._offsets[number] | COPIED

    def tables(self) -> bytes:
        """As they are to be written."""
        words = self._words[:]
        if sys.byteorder == "little":
            words.byteswap()
        return words.tobytes()
