# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Calls qemu-img on untrusted files: with resource limits, the format always named, no backing file followed."""

from __future__ import annotations

import json
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._command import bound_command
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError

# Enough for any real image (a disk of 64 TiB in clusters of 64 KiB was measured to need less than half), and no more.
LIMITS = ("--as=2147483648", "--cpu=60", "--core=0")
INFO_TIMEOUT = 30
CHECK_TIMEOUT = 120
CONVERT_TIMEOUT = 4 * 3600


class Extent(t.TypedDict, total=False):
    """A part of a disk, in bytes, as ``qemu-img map`` describes it.

    ``present``: the file itself holds it, not a layer below. ``data``: it doesn't read as zeros. ``offset``: where it
    lies in the file; missing where it is compressed. The others are always there.
    """

    start: int
    length: int
    present: bool
    data: bool
    offset: int


def file_node(path: str, image_format: str, below: t.Sequence[str] = ()) -> str:
    """The image as QEMU's JSON file name: the format is fixed, and a backing file that the image names isn't opened
    (pure).

    :param below: the qcow2 files to read it with, the nearest first, instead of the backing file that it names.
    """
    node: dict[str, object] | None = None
    for each in reversed(below):
        node = {"driver": "qcow2", "file": {"driver": "file", "filename": each}, "backing": node}
    top: dict[str, object] = {"driver": image_format, "file": {"driver": "file", "filename": path}}
    if image_format == "qcow2":
        top["backing"] = node
    return "json:" + json.dumps(top)


def info(path: str, image_format: str) -> dict[str, object]:
    """The answer of ``qemu-img info``.

    :raises GridError: ``image_unreadable``, also where reading takes too much time or memory.
    """
    return _mapping(_ask(["info", "--output=json", file_node(path, image_format)], INFO_TIMEOUT))


def check(path: str) -> dict[str, object]:
    """The answer of ``qemu-img check`` for a qcow2 file: which clusters are missing, shared or beyond its end.

    :raises GridError: ``image_unreadable``.
    """
    # 2: errors found, 3: only leaked space (qemu-img(1))
    return _mapping(_ask(["check", "--output=json", file_node(path, "qcow2")], CHECK_TIMEOUT, accept=(0, 2, 3)))


_REMEDY = "See that the file is a whole image, for example with qemu-img check; if it is, get it again"


def _mapping(facts: object) -> dict[str, object]:
    if not isinstance(facts, dict):
        raise GridError("image_unreadable", "qemu-img said something unexpected", remedy=_REMEDY)
    return facts


def _ask(arguments: t.Sequence[str], timeout: float, accept: t.Container[int] = (0,)) -> object:
    remedy = _REMEDY
    try:
        text = bound_command(
            ["qemu-img", *arguments],
            limits=LIMITS,
            timeout=timeout,
            code="image_unreadable",
            remedy=remedy,
            accept=accept,
        )
        return json.loads(text)
    except GridError as exc:
        if exc.code == "timed_out":
            raise GridError("image_unreadable", exc.msg, tried=exc.tried, remedy=remedy) from exc
        raise
    except (ValueError, RecursionError) as exc:
        raise GridError("image_unreadable", "qemu-img said something that is no JSON", remedy=remedy) from exc


def extents(path: str) -> list[Extent]:
    """The extents of a qcow2 file, read without its backing file. :raises GridError: ``image_unreadable``."""
    found = _ask(["map", "--output=json", file_node(path, "qcow2")], CHECK_TIMEOUT)
    keys = ("start", "length", "present", "data")
    if not isinstance(found, list) or not all(
        isinstance(extent, dict) and all(key in extent for key in keys) for extent in found
    ):
        raise GridError(
            "image_unreadable", "qemu-img said something unexpected", remedy="See which version of qemu-img this is"
        )
    return found


def convert(source: str, source_format: str, target: str, below: t.Sequence[str] = ()) -> None:
    """Convert ``source`` to a raw, sparse file; the caller reads it once and removes it.

    :param below: the qcow2 files that ``source`` lies on, the nearest first.
    :raises GridError: ``convert_failed``.
    """
    bound_command(
        [
            "qemu-img",
            "convert",
            "-O",
            "raw",
            "-S",
            "64k",
            "-m",
            "4",
            "-W",
            file_node(source, source_format, below),
            target,
        ],
        limits=("--as=8589934592", "--core=0"),
        timeout=CONVERT_TIMEOUT,
        code="convert_failed",
        remedy="See that the source is a whole image and that the image store's disk works",
    )
