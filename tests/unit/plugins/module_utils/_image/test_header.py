# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hostile image files are refused by their header alone."""

from __future__ import annotations

import struct

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store import header

MIB = 2**20


def qcow2(
    magic=b"QFI\xfb",
    version=3,
    backing=b"",
    bits=16,
    size=64 * MIB,
    crypt=0,
    l1_size=1,
    l1_at=3 << 16,
    refcount_at=1 << 16,
    refcount_clusters=1,
    features=0,
    length=104,
    extensions=b"",
):
    """The head of a qcow2 file: header, extensions, the backing file's name."""
    at = length + len(extensions) + 8 if backing else 0
    fixed = struct.pack(
        ">4sIQIIQIIQQIIQ",
        magic,
        version,
        at,
        len(backing),
        bits,
        size,
        crypt,
        l1_size,
        l1_at,
        refcount_at,
        refcount_clusters,
        0,
        0,
    )
    more = struct.pack(">QQQII", features, 0, 0, 4, length) if version == 3 else b""
    return (fixed + more + extensions + bytes(8) + backing).ljust(512, b"\0")


def code_of(head, length=MIB, image_format="qcow2"):
    with pytest.raises(GridError) as caught:
        header.judge(head, length, image_format)
    assert caught.value.remedy
    return caught.value.code


@pytest.mark.parametrize("version", [2, 3])
def test_an_honest_image(version):
    head = qcow2(version=version, size=5 * MIB, length=104 if version == 3 else 72)
    assert header.judge(head, MIB, "qcow2") == 5 * MIB
    parsed = header.parse(head)
    assert (parsed.version, parsed.cluster_size, parsed.backing_file, parsed.data_file) == (version, 65536, None, False)


def test_raw_is_as_large_as_its_file():
    assert header.judge(b"\xeb\x63\x90" + bytes(509), 3 * MIB, "raw") == 3 * MIB


@pytest.mark.parametrize(
    ("head", "code"),
    [
        (b"", "image_wrong_format"),
        (b"QFI", "image_wrong_format"),
        (b"\0" * 512, "image_wrong_format"),
        (b"KDMV" + b"\0" * 508, "image_wrong_format"),
        (qcow2()[:71], "image_damaged"),
        (qcow2()[:80], "image_damaged"),
        (qcow2(version=1), "image_wrong_format"),
        (qcow2(version=4), "image_wrong_format"),
        (qcow2(backing=b"/etc/shadow"), "image_has_backing_file"),
        (qcow2(backing=b"json:{}", version=2), "image_has_backing_file"),
        (qcow2(backing=b"x" * 300), "image_has_backing_file"),
        (qcow2(features=4), "image_has_data_file"),
        (qcow2(extensions=struct.pack(">II", 0x44415441, 8) + b"/dev/sda"), "image_has_data_file"),
        (
            qcow2(extensions=struct.pack(">II", 1, 3) + bytes(8) + struct.pack(">II", 0x44415441, 8) + b"/dev/sda"),
            "image_has_data_file",
        ),
        (qcow2(crypt=1), "image_encrypted"),
        (qcow2(crypt=2), "image_encrypted"),
        (qcow2(features=2), "image_damaged"),
        (qcow2(features=1 << 63), "image_wrong_format"),
        (qcow2(size=2**64 - 1), "image_too_large"),
        (qcow2(size=64 * 2**40 + 1), "image_too_large"),
        (qcow2(size=0), "image_empty"),
        (qcow2(bits=8), "image_damaged"),
        (qcow2(bits=22), "image_damaged"),
        (qcow2(bits=2**32 - 1), "image_damaged"),
        (qcow2(l1_size=2**32 - 1), "image_damaged"),
        (qcow2(l1_at=2**60), "image_damaged"),
        (qcow2(refcount_at=2**63), "image_damaged"),
        (qcow2(refcount_clusters=2**32 - 1), "image_damaged"),
        (qcow2(length=103), "image_damaged"),
        (qcow2(length=2**32 - 1), "image_damaged"),
    ],
)
def test_refused(head, code):
    assert code_of(head) == code


def test_a_backing_name_beyond_the_head():
    head = bytearray(qcow2(backing=b"x"))
    head[8:20] = struct.pack(">QI", 2**63, 1023)
    assert code_of(bytes(head)) == "image_damaged"
    head[8:20] = struct.pack(">QI", 200, 2**32 - 1)
    assert code_of(bytes(head)) == "image_damaged"


@pytest.mark.parametrize("head", [qcow2(), b"KDMV", b"vhdxfile", b"# Disk DescriptorFile", b"QED\0", b"LUKS\xba\xbe"])
def test_raw_that_pretends(head):
    assert code_of(head, image_format="raw") == "image_wrong_format"


def test_raw_without_content_or_too_large():
    assert code_of(b"", 0, "raw") == "image_empty"
    assert code_of(bytes(512), 2**62, "raw") == "image_too_large"


def test_a_chain_of_extensions_ends():
    assert header.parse(qcow2(extensions=struct.pack(">II", 7, 0) * 40)).data_file is False
    assert header.parse(qcow2(extensions=struct.pack(">II", 7, 2**32 - 1))).data_file is False


def test_the_message_shows_no_control_characters():
    with pytest.raises(GridError) as caught:
        header.judge(qcow2(backing=b"\x1b[2J\xff"), MIB, "qcow2")
    assert "\x1b" not in str(caught.value)
