# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state ``pruned`` of the module ``image``: removes the layers that nothing needs."""

from __future__ import annotations

import contextlib
import os
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._diff import diff
from ansible_collections.virtuoso.grid.plugins.module_utils._disk_space import disk_errors
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import Result
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.depot import Depot
from ansible_collections.virtuoso.grid.plugins.module_utils._names import check


def ensure_pruned(depot: Depot, in_use: t.Sequence[str], check_mode: bool) -> Result:
    """Remove the layers that neither a manifest nor a machine needs.

    :param in_use: digests that machines on other hosts use. :returns: the module's result, with ``diff``.
    :raises GridError: ``invalid_digest``.
    """
    used = {check("digest", digest) for digest in in_use}
    with disk_errors(depot.images):
        unneeded, going = depot.unneeded(used), depot.prunable(used)
        sizes = {digest: _allocated(depot.files_of(digest)) for digest in going}
        if going and not check_mode:
            going = depot.prune(used)
    return {
        "changed": bool(going),
        "removed_layers": going,
        "kept_layers": [digest for digest in unneeded if digest not in going],
        "freed": sum(sizes.get(digest, 0) for digest in going),
        "diff": [diff("layers", {"unneeded": sorted(going)}, {"unneeded": []})] if going else [],
    }


def _allocated(paths: t.Iterable[str]) -> int:
    """Bytes that the files occupy on the disk."""
    total = 0
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            total += os.lstat(path).st_blocks * 512
    return total
