# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a file is by its content: names and extensions are the publisher's affair (pure)."""

from __future__ import annotations

import typing as t

HEAD, TAIL = 2**16, 512
"""Bytes from the begin and the end of a file that :func:`recognise` looks at."""

PACKED = ("xz", "gzip", "zstd", "bzip2")
"""Kinds that are unpacked."""

_BEGINS = (
    (b"\xfd7zXZ\0", "xz"),
    (b"\x1f\x8b\x08", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"PK\x03\x04", "zip"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"Rar!\x1a\x07", "rar"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"\x5d\0\0", "lzma"),
    (b"QFI\xfb", "qcow2"),
    (b"KDMV", "vmdk"),
    (b"COWD", "vmdk"),
    (b"# Disk DescriptorFile", "vmdk"),
    (b"conectix", "vhd"),
    (b"vhdxfile", "vhdx"),
    (b"QED\0", "qed"),
    (b"OOOM", "cow"),
    (b"LUKS\xba\xbe", "luks"),
)
_VDI_AT, _VDI = 64, b"\x7f\x10\xda\xbe"
_TAR_AT = 257
_BZIP2_AT, _BZIP2 = 4, (b"1AY&SY", b"\x17rE8P\x90")
_PAGES = (b"<!doctype html", b"<html", b"<?xml", b"<!doctype")


def recognise(head: bytes, tail: bytes = b"") -> str:
    """The kind of a file: ``qcow2``, one of ``PACKED``, another format or archive, ``page`` (HTML or XML), or ``raw``
    where it is none of these.

    :param head: its first bytes. :param tail: its last 512.
    """
    for magic, kind in _BEGINS:
        if head.startswith(magic):
            return kind
    if head[:3] == b"BZh" and head[3:4].isdigit() and head[_BZIP2_AT : _BZIP2_AT + 6] in _BZIP2:
        return "bzip2"
    if head[_VDI_AT : _VDI_AT + 4] == _VDI:
        return "vdi"
    if head[_TAR_AT : _TAR_AT + 5] == b"ustar":
        return "tar"
    if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:16].lower().startswith(_PAGES):
        return "page"
    # A fixed VHD is a raw disk with a footer, and would be half a sector too long.
    return "vhd" if tail.startswith(b"conectix") else "raw"


_ADVICE: t.Dict[str, str] = {
    "page": "See that the address is that of the file itself and not of a page about it",
    "tar": "Unpack the archive, and give the disk image that is in it",
    "zip": "Unpack the archive, and give the disk image that is in it",
    "7z": "Unpack the archive, and give the disk image that is in it",
    "rar": "Unpack the archive, and give the disk image that is in it",
    "lz4": "Unpack it first: lz4 -d",
    "lzma": "Unpack it first: xz -d --format=lzma",
    "luks": "Give an image that is not encrypted",
}


def advice(kind: str) -> str:
    """What to do with a file of a kind that is no image of ours."""
    convert = {"vhd": "vpc"}.get(kind, kind)
    return _ADVICE.get(kind, f"Convert it first: qemu-img convert -f {convert} -O qcow2 FILE NEW.qcow2")
