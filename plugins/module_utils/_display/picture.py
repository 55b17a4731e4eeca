# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Converts a screenshot as QEMU writes it to PNG, with the standard library only (pure)."""

from __future__ import annotations

import re
import struct
import typing as t
import zlib

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# https://netpbm.sourceforge.net/doc/ppm.html, as QEMU writes it: no comments, one byte a colour
_PPM = re.compile(rb"P6\s+(\d{1,5})\s+(\d{1,5})\s+255\s")
_LARGEST_SIDE = 16384


class Picture(t.NamedTuple):
    """A PNG file's bytes, its width and height."""

    data: bytes
    width: int
    height: int


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _unreadable(why: str) -> GridError:
    return GridError(
        "screenshot_invalid", f"the screenshot can't be read: {why}", remedy="Look at the display with a VNC client"
    )


def _from_ppm(match: re.Match[bytes], data: bytes) -> Picture:
    width, height = int(match.group(1)), int(match.group(2))
    if not 0 < width <= _LARGEST_SIDE or not 0 < height <= _LARGEST_SIDE:
        raise _unreadable(f"it has {width} x {height} pixels")
    start, row = match.end(), 3 * width
    if len(data) - start < row * height:
        raise _unreadable("it is cut off")
    # PNG, section 9: each row begins with its filter, 0 is none
    rows = b"".join(b"\0" + data[at : at + row] for at in range(start, start + row * height, row))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return Picture(
        _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows, 6)) + _chunk(b"IEND", b""),
        width,
        height,
    )


def to_png(data: bytes) -> Picture:
    """Convert a picture in PNG or binary PPM to PNG.

    :raises GridError: ``screenshot_invalid``.
    """
    if data.startswith(_SIGNATURE):
        if len(data) < 33 or data[12:16] != b"IHDR":
            raise _unreadable("it is cut off")
        width, height = struct.unpack(">II", data[16:24])
        return Picture(data, width, height)
    match = _PPM.match(data)
    if match is None:
        raise _unreadable("it is neither PNG nor PPM")
    return _from_ppm(match, data)
