# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What exports, and what reads them for machines that page, are called (pure)."""

from __future__ import annotations

SOURCE, PAGER = "source", "pager"
QMP = "qmp"
"""The socket of a pager's monitor, in its unit's directory under /run."""

CACHE, CACHE_FILE, ORIGIN = "cache", "file", "source"
"""Nodes of a pager: what it keeps, the file of that, and what it reads when it hasn't got it."""

CACHE_NAME = "cache.qcow2"
"""The name of that file."""


def unit_name(kind: str, digest: str) -> str:
    """The name of the unit of an export."""
    return f"virtuoso-export-{kind}-{digest[len('sha256:') :]}.service"
