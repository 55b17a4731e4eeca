# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Takes away directories of ours."""

from __future__ import annotations

import os
import shutil
import time

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError


def remove_tree(tree: str) -> None:
    """Remove a tree of ours, unless something is mounted in it, which would be lost.
    :raises GridError: ``leftover_mounted``."""
    if not os.path.isdir(tree) or os.path.islink(tree):
        return
    for top, dirs, dummy in os.walk(tree):
        for name in dirs:
            full = os.path.join(top, name)
            # os.walk doesn't follow links, but ismount would look through them
            if not os.path.islink(full) and os.path.ismount(full):
                raise GridError(
                    "leftover_mounted", f"something is mounted on {full}", remedy="Unmount it, then run the same again"
                )
    for attempt in range(10):
        try:
            return shutil.rmtree(tree)
        except OSError:
            # A program of a run that was killed may write for some moments until the kernel has ended it, too
            if attempt == 9:
                raise
            time.sleep(0.2)
    return None


def clear(directory: str, keep: str, before: float | None = None) -> bool:
    """Remove what is in a directory, but files whose names end in ``keep``.

    :param before: remove those that are older than this time, too (seconds since 1970).
    :returns: whether something was removed.
    """
    removed = False
    try:
        names = sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return False
    for name in names:
        path = os.path.join(directory, name)
        if name.endswith(keep) and (before is None or os.lstat(path).st_mtime >= before):
            continue
        if os.path.isdir(path) and not os.path.islink(path):
            remove_tree(path)
        else:
            os.unlink(path)
        removed = True
    return removed
