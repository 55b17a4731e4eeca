# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""qemu-img: asked about hostile files within limits, and never left to guess a format or to follow a name in a file."""

from __future__ import annotations

import json
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._tool import tool

# Enough for any honest image (measured: 64 TiB in clusters of 64 KiB needs less than half), not for a bomb.
LIMITS = ("--as=2147483648", "--cpu=60", "--core=0")
INFO_TIMEOUT = 30
CHECK_TIMEOUT = 120
CONVERT_TIMEOUT = 4 * 3600


def file_node(path: str, image_format: str, below: t.Sequence[str] = ()) -> str:
    """The image as a JSON file name: its format is given, and a backing file that it may name is not opened (pure).

    :param below: the qcow2 files that it is to be read with, the nearest first, whatever it names itself.
    """
    node: dict[str, t.Any] | None = None
    for each in reversed(below):
        node = {"driver": "qcow2", "file": {"driver": "file", "filename": each}, "backing": node}
    top: dict[str, t.Any] = {"driver": image_format, "file": {"driver": "file", "filename": path}}
    if image_format == "qcow2":
        top["backing"] = node
    return "json:" + json.dumps(top)


def info(path: str, image_format: str) -> dict[str, t.Any]:
    """What qemu-img says of a file.

    :raises GridError: ``image_unreadable``, also where reading it takes too much time or memory.
    """
    return _ask(["info", "--output=json", file_node(path, image_format)], INFO_TIMEOUT)


def check(path: str) -> dict[str, t.Any]:
    """What qemu-img finds wrong with a qcow2 file: clusters that are missing, shared or beyond its end.

    :raises GridError: ``image_unreadable``.
    """
    # 2: errors found, 3: only space that is lost (qemu-img(1))
    return _ask(["check", "--output=json", file_node(path, "qcow2")], CHECK_TIMEOUT, accept=(0, 2, 3))


def _ask(arguments: t.Sequence[str], timeout: float, accept: t.Container[int] = (0,), kind: type = dict) -> t.Any:
    remedy = "See that the file is a whole image, for example with qemu-img check; if it is, get it again"
    try:
        text = tool(
            ["qemu-img", *arguments],
            limits=LIMITS,
            timeout=timeout,
            code="image_unreadable",
            remedy=remedy,
            accept=accept,
        )
        facts = json.loads(text)
    except GridError as exc:
        if exc.code == "timed_out":
            raise GridError("image_unreadable", exc.msg, tried=exc.tried, remedy=remedy) from exc
        raise
    except (ValueError, RecursionError) as exc:
        raise GridError("image_unreadable", "qemu-img said something that is no JSON", remedy=remedy) from exc
    if not isinstance(facts, kind):
        raise GridError("image_unreadable", "qemu-img said something unexpected", remedy=remedy)
    return facts


def extents(path: str) -> list[dict[str, t.Any]]:
    """What a qcow2 file holds itself: ``start``, ``length``, ``present``, ``data`` and, of data as they are,
    ``offset``.

    :raises GridError: ``image_unreadable``.
    """
    found = _ask(["map", "--output=json", file_node(path, "qcow2")], CHECK_TIMEOUT, kind=list)
    keys = ("start", "length", "present", "data")
    if not all(isinstance(extent, dict) and all(key in extent for key in keys) for extent in found):
        raise GridError(
            "image_unreadable", "qemu-img said something unexpected", remedy="See which version of qemu-img this is"
        )
    return t.cast("list[dict[str, t.Any]]", found)


def convert(source: str, source_format: str, target: str, below: t.Sequence[str] = ()) -> None:
    """Write ``source`` anew as a raw disk with holes, to be read once more and removed.

    :param below: the qcow2 files that it lies on, the nearest first.
    :raises GridError: ``convert_failed``.
    """
    tool(
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
