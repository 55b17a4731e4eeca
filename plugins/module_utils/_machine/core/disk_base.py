# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a disk is an overlay on, layers or an export, and when it moves from one to the other (pure).

A machine may start before its image is here. Its disk is then an overlay on the image's export by the provider's pager.
That disk has another name than one on layers, so that one can be made beside the other; the domain says which counts.
"""

from __future__ import annotations

import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.records import Export

SETTLE, REPOINT = "settle", "repoint"


class Move(t.NamedTuple):
    """What to do with a disk: SETTLE it on the layers here, or REPOINT it to another export. ``before`` is an export's
    URI, ``None`` where nothing but old files is left; ``after`` is an export's URI or ``layers``."""

    kind: str
    before: t.Optional[str]
    after: str


def address(pages: Export) -> Export:
    """An export's address alone, without its size."""
    return {"host": pages["host"], "port": pages["port"], "export": pages["export"]}


def export_uri(pages: Export) -> str:
    """The name of an export in the header of a disk that pages from it."""
    host = f"[{pages['host']}]" if ":" in pages["host"] else pages["host"]
    return f"nbd://{host}:{pages['port']}/{pages['export']}"


def paged_layer(backing: str | None) -> str | None:
    """The digest of the layer whose export has this name in a disk's header; ``None`` where it is no export."""
    return backing.rpartition("/")[2] if backing and backing.startswith("nbd://") else None


def backing_words(backing: str) -> list[str]:
    """The options of qemu-img for an overlay on a file or an export; it doesn't open an export."""
    return ["-u", "-b", backing, "-F", "raw"] if backing.startswith("nbd://") else ["-b", backing, "-F", "qcow2"]


def decide(
    config: Export | None, live: Export | None, leftover: bool, wanted: Export | None, whole: bool
) -> list[Move]:
    """What to do with the disk of a machine that is defined.

    :param config: the export that its disk pages from as configured, ``None`` where it is on layers.
    :param live: the same of the running machine, ``None`` also where it doesn't run.
    :param leftover: whether the file of an earlier disk is beside the one that the domain names.
    :param wanted: the export that is offered for it now, if there is one.
    :param whole: whether all layers of its image are here.
    """
    now = live or config
    if now is None:
        # A run was killed before it removed the old file: finish that.
        return [Move(SETTLE, None, "layers")] if leftover and whole else []
    if whole:
        return [Move(SETTLE, export_uri(now), "layers")]
    if wanted is not None and any(address(each) != address(wanted) for each in (config, live) if each is not None):
        return [Move(REPOINT, export_uri(now), export_uri(wanted))]
    return []


def lost(pages: Export | None, reason: str | None) -> bool:
    """Whether a machine is paused because the export that it pages from can't be read.

    :param reason: why it is paused; see :func:`observe.paused_reason`.
    """
    return pages is not None and reason == "io_error"


def source_lost(pages: Export) -> GridError:
    """The error of a machine that can't read the export that it pages from."""
    return GridError(
        "source_lost",
        f"its image is not here yet, and the export from which it pages can't be read: {export_uri(pages)}",
        remedy="Run the playbook virtuoso.grid.deploy: it exports the image again, from another host that has it if "
        "need be",
        pages=address(pages),
    )
