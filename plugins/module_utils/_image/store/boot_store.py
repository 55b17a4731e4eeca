# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps boot records (see ``boot``) as files beside the layers of a store."""

from __future__ import annotations

import contextlib
import os
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store import boot
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.depot import Depot, share
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.reference import boot_file


def boot_record(depot: Depot, digest: str) -> list[int] | None:
    """The block numbers that a boot of the image with this topmost layer reads; ``None`` without a readable record."""
    with contextlib.suppress(OSError, GridError), open(depot.boot_path(digest), "rb") as stream:
        return boot.parse(stream.read(boot.MAX_TEXT + 1))
    return None


def record_boot(depot: Depot, digest: str, numbers: t.Sequence[int]) -> bool:
    """Merge what a boot read into the layer's record; nothing happens where the layer isn't on this host.

    :returns: whether the record changed.
    """
    with depot.locked():
        known = boot_record(depot, digest) or []
        merged = boot.merge(known, numbers)
        if not depot.has(digest) or merged == known:
            return False
        temporary = os.path.join(depot.staging, f"{boot_file(digest)}.{os.getpid()}.new")
        with open(temporary, "wb") as stream:
            stream.write(boot.encode(merged))
        share(temporary, 0o640)
        os.replace(temporary, depot.boot_path(digest))
        return True
