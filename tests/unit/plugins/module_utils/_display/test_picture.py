# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Screenshots as PNG, whatever QEMU wrote."""

from __future__ import annotations

import struct
import zlib

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._display.picture import to_png
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError

PIXELS = bytes(range(2 * 3 * 3))


def chunks(png):
    at = 8
    while at < len(png):
        size, kind = struct.unpack(">I4s", png[at : at + 8])
        data = png[at + 8 : at + 8 + size]
        assert struct.unpack(">I", png[at + 8 + size : at + 12 + size])[0] == zlib.crc32(kind + data)
        yield kind, data
        at += 12 + size


def test_ppm_becomes_png_with_the_same_pixels():
    picture = to_png(b"P6\n2 3\n255\n" + PIXELS)
    found = dict(chunks(picture.data))
    assert (picture.width, picture.height) == (2, 3) == struct.unpack(">II", found[b"IHDR"][:8])
    rows = zlib.decompress(found[b"IDAT"])
    assert b"".join(rows[at + 1 : at + 7] for at in range(0, len(rows), 7)) == PIXELS
    assert list(found) == [b"IHDR", b"IDAT", b"IEND"]


def test_png_stays_as_it_is():
    made = to_png(b"P6 2 3 255 " + PIXELS)
    assert to_png(made.data) == made


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GIF89a",
        b"\x89PNG\r\n\x1a\n",
        b"P6\n2 3\n255\n" + PIXELS[:-1],
        b"P6\n0 3\n255\n",
        b"P6\n99999 99999\n255\n",
        b"P6\n2 3\n65535\n" + PIXELS,
    ],
)
def test_anything_else_is_refused(data):
    with pytest.raises(GridError) as caught:
        to_png(data)
    assert caught.value.code == "screenshot_invalid"
