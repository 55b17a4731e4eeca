# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of exports' units, sockets and files, which the transfer of images must know too (pure)."""

from __future__ import annotations

SOURCE, PAGER = "source", "pager"
QMP = "qmp"
"""The socket of a pager's monitor, in its unit's directory under /run."""

CACHE, CACHE_FILE, ORIGIN = "cache", "file", "source"
"""Block nodes of a pager: its cache, the cache's file, and the source of what the cache lacks."""

CACHE_NAME = "cache.qcow2"
"""The name of the cache's file."""


def unit_name(kind: str, digest: str) -> str:
    """The systemd unit of an export.

    :param kind: SOURCE or PAGER. :param digest: of the layer.
    """
    return f"virtuoso-export-{kind}-{digest[len('sha256:') :]}.service"
