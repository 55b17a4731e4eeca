# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Machines that run before their image is here: what their disk lies on now, and what it should (pure).

The disk of such a machine is an overlay on the export of its image by the provider's pager. It has another name than a
disk that lies on layers, so that the one can be made beside the other; which one counts, the domain says.
"""

from __future__ import annotations

import typing as t

Model = t.Dict[str, t.Any]

SETTLE, REPOINT = "settle", "repoint"
_ADDRESS = ("host", "port", "export")


class Move(t.NamedTuple):
    """What is to be done with the disk: SETTLE it on the layers here, or REPOINT it to another export."""

    kind: str
    before: t.Any
    after: t.Any


def address(pages: t.Mapping[str, t.Any] | None) -> Model | None:
    """An export without what doesn't belong to its address."""
    return None if pages is None else {key: pages[key] for key in _ADDRESS}


def export_uri(pages: t.Mapping[str, t.Any]) -> str:
    """How a disk's header names the export that it pages from."""
    host = f"[{pages['host']}]" if ":" in pages["host"] else pages["host"]
    return f"nbd://{host}:{pages['port']}/{pages['export']}"


def paged_layer(backing: str | None) -> str | None:
    """The digest of the layer whose export a disk with this backing name is an overlay on, ``None`` where it is none."""
    return backing.rpartition("/")[2] if backing and backing.startswith("nbd://") else None


def backing_words(backing: str) -> list[str]:
    """The options by which qemu-img puts an overlay on something; an export is not asked."""
    return ["-u", "-b", backing, "-F", "raw"] if backing.startswith("nbd://") else ["-b", backing, "-F", "qcow2"]


def decide(config: Model | None, live: Model | None, leftover: bool, wanted: Model | None, whole: bool) -> list[Move]:
    """What to do with the disk of a machine that is defined.

    :param config: the export that its disk pages from as configured, ``None`` where it lies on layers.
    :param live: the same of the running machine, ``None`` also where it doesn't run.
    :param leftover: a file of an earlier disk is beside that which the domain names.
    :param wanted: the export that there is for it now, if there is one.
    :param whole: its image's layers are all here.
    """
    now = live or config
    if now is None:
        # Killed after the move and before the last of it: what remains is done.
        return [Move(SETTLE, None, "layers")] if leftover and whole else []
    if whole:
        return [Move(SETTLE, export_uri(now), "layers")]
    if wanted is not None and any(address(each) not in (None, address(wanted)) for each in (config, live)):
        return [Move(REPOINT, export_uri(now), export_uri(wanted))]
    return []


def lost(pages: t.Mapping[str, t.Any] | None, reason: str | None) -> bool:
    """Whether a machine stands still because what it pages from can't be read."""
    return pages is not None and reason == "io_error"
