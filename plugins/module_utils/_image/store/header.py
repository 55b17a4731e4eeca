# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads and checks the header of an image file before any other program opens the file (pure).

Format: QEMU's docs/interop/qcow2.txt. All numbers are big-endian.
"""

from __future__ import annotations

import struct
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store import kinds

MAGIC = b"QFI\xfb"
HEAD_SIZE = 2**20
"""The first bytes of a file that :func:`parse` needs: the header, its extensions and the backing file's name."""

MAX_VIRTUAL_SIZE = 64 * 2**40
FORMATS = ("qcow2", "raw")

_V2 = struct.Struct(">4sIQIIQIIQQIIQ")
_V3 = struct.Struct(">QQQII")
_INCOMPATIBLE = {"dirty": 1, "corrupt": 2, "external data file": 4, "compression type": 8, "extended L2": 16}
_DATA_FILE, _KNOWN = _INCOMPATIBLE["external data file"], sum(_INCOMPATIBLE.values())
_EXTENSION_END, _EXTENSION_DATA_FILE = 0, 0x44415441
_MAX_L1, _MAX_REFCOUNT_TABLE, _MAX_BACKING_NAME = 32 * 2**20, 8 * 2**20, 1023


class Header(t.NamedTuple):
    """What a qcow2 file says of itself; sizes in bytes."""

    version: int
    virtual_size: int
    cluster_size: int
    backing_file: str | None
    data_file: bool
    encrypted: bool
    corrupt: bool
    unknown_features: int
    l1_end: int
    refcount_end: int


def _damaged(why: str) -> GridError:
    return GridError(
        "image_damaged", f"the qcow2 header {why}", remedy="Get the file again, or repair it with qemu-img check -r all"
    )


def parse(head: bytes) -> Header:
    """Read a qcow2 header.

    :param head: the file's first ``HEAD_SIZE`` bytes, or the whole of a shorter file.
    :raises GridError: ``image_wrong_format`` for another format, ``image_damaged`` for a header that contradicts
        itself.
    """
    if not head.startswith(MAGIC):
        raise GridError(
            "image_wrong_format", "the file is not a qcow2 image", remedy="Give the format that it has: qcow2 or raw"
        )
    if len(head) < _V2.size:
        raise _damaged("is cut off")
    (
        _magic,
        version,
        backing_at,
        backing_length,
        cluster_bits,
        size,
        crypt,
        l1_size,
        l1_at,
        refcount_at,
        refcount_clusters,
        _snapshots,
        _at,
    ) = _V2.unpack_from(head)
    if version not in (2, 3):
        raise GridError(
            "image_wrong_format",
            f"the file is a qcow of version {version}",
            remedy="Convert it to qcow2 version 2 or 3 first",
        )
    if not 9 <= cluster_bits <= 21:
        raise _damaged("has an impossible cluster size")
    features, length = 0, _V2.size
    if version == 3:
        if len(head) < _V2.size + _V3.size:
            raise _damaged("is cut off")
        features, _compatible, _autoclear, _order, length = _V3.unpack_from(head, _V2.size)
        if not _V2.size + _V3.size <= length <= min(len(head), 1 << cluster_bits):
            raise _damaged("has an impossible length")
    if l1_size * 8 > _MAX_L1 or refcount_clusters << cluster_bits > _MAX_REFCOUNT_TABLE:
        raise _damaged("has tables that are too large")
    return Header(
        version=version,
        virtual_size=size,
        cluster_size=1 << cluster_bits,
        backing_file=_backing(head, backing_at, backing_length),
        data_file=bool(features & _DATA_FILE) or _EXTENSION_DATA_FILE in _extensions(head, length),
        encrypted=crypt != 0,
        corrupt=bool(features & _INCOMPATIBLE["corrupt"]),
        unknown_features=features & ~_KNOWN,
        l1_end=l1_at + l1_size * 8,
        refcount_end=refcount_at + (refcount_clusters << cluster_bits),
    )


def _backing(head: bytes, at: int, length: int) -> str | None:
    if at == 0:
        return None
    if length > _MAX_BACKING_NAME or at + length > len(head):
        raise _damaged("has an impossible backing file name")
    return head[at : at + length].decode("utf-8", "replace")


def _extensions(head: bytes, at: int) -> list[int]:
    """The types of the header's extensions: pairs of type and length, each followed by data that fill whole 8 bytes."""
    found: list[int] = []
    while at + 8 <= len(head) and len(found) < 64:
        kind, length = struct.unpack_from(">II", head, at)
        if kind == _EXTENSION_END:
            break
        found.append(kind)
        at += 8 + -(-length // 8) * 8
    return found


def judge(head: bytes, length: int, image_format: str, tail: bytes = b"") -> int:
    """Decide whether an untrusted file may be used as an image of the stated format.

    :param head: the file's first ``HEAD_SIZE`` bytes. :param length: the whole file's length in bytes.
    :param image_format: ``qcow2`` or ``raw``, from the user.
    :param tail: the file's last 512 bytes.
    :returns: the disk's size in bytes.
    :raises GridError: ``image_wrong_format``, ``image_has_backing_file``, ``image_has_data_file``, ``image_encrypted``,
        ``image_damaged``, ``image_too_large``, ``image_empty``.
    """
    _refuse_disguised(kinds.recognise(head, tail), image_format)
    if image_format == "raw":
        size = length
    else:
        header = parse(head)
        _refuse(header, length)
        size = header.virtual_size
    if size == 0:
        raise GridError("image_empty", "the image has no content", remedy="See that the file was written completely")
    if size > MAX_VIRTUAL_SIZE:
        raise GridError(
            "image_too_large",
            f"the image claims a disk of {size} bytes; 64 TiB are the most",
            remedy="Use an image with a smaller disk",
            virtual_size=size,
        )
    return size


def _refuse_disguised(kind: str, image_format: str) -> None:
    """:param kind: as :func:`kinds.recognise` has it."""
    if kind == image_format:
        return
    # A disk without a boot sector may begin like anything; of a qcow2 the header says more.
    if kind == "raw":
        return
    said = f"the file is said to be {image_format}, and its content is {'a web page' if kind == 'page' else kind}"
    raise GridError(
        "image_wrong_format", said, remedy="Give format: qcow2" if kind == "qcow2" else kinds.advice(kind), kind=kind
    )


def _refuse(header: Header, length: int) -> None:
    if header.backing_file is not None:
        raise GridError(
            "image_has_backing_file",
            f"the image names a backing file, {ascii(header.backing_file[:100])}",
            remedy="Give an image that depends on no other file: qemu-img convert makes one",
        )
    if header.data_file:
        raise GridError(
            "image_has_data_file",
            "the image keeps its data in an external file",
            remedy="Give an image that depends on no other file: qemu-img convert makes one",
        )
    if header.encrypted:
        raise GridError("image_encrypted", "the image is encrypted", remedy="Give an image that is not encrypted")
    if header.unknown_features:
        raise GridError(
            "image_wrong_format",
            f"the image needs unknown features of qcow2 ({header.unknown_features:#x})",
            remedy="Convert it with qemu-img convert first",
        )
    if header.corrupt:
        raise _damaged("says that the image is corrupt")
    if header.l1_end > length or header.refcount_end > length:
        raise _damaged("points beyond the end of the file")
