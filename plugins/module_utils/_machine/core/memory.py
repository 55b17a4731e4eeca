# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The file with a hibernated machine's memory: its format, its head, and whether it fits the machine (pure).

The file is one zstd stream. Its first frame is a skippable one of fixed size with the head as JSON. So ``zstd -dc
FILE`` gives what libvirt saved, and the head can be rewritten in place.
"""

from __future__ import annotations

import json
import struct
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.records import DiskIdentity
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.records import MemoryHead as Head

MEMORY, SAVED = "memory.zst", "memory.save"
"""File names in the machine's directory: the compressed memory; and the memory as libvirt saves it, until then."""

JOURNEY = "asleep.json"
"""The name of the note beside it of a machine that was hibernated only to be moved; it says what the machine was."""

FORMAT = 1
HEAD_SIZE = 2**16
# RFC 8878, section 3.1.2: a skippable frame
_MAGIC = 0x184D2A56
_FRAME = struct.Struct("<II")
# libvirt, src/qemu/qemu_saveimage.h: QEMU_SAVE_MAGIC of a whole image; until then it is LibvirtQemudPart
_SAVED_MAGIC = b"LibvirtQemudSave"

_REMEDY = "Start the machine with discard to lose what it had in memory; its disk is as after a loss of power"


def _invalid(why: str, **details: t.Any) -> GridError:
    return GridError(
        "hibernation_invalid", f"the file with the machine's memory can't be used: {why}", remedy=_REMEDY, **details
    )


def pack(head: Head) -> bytes:
    """The frame with the head. :raises GridError: ``hibernation_invalid`` for a head that is too long."""
    text = json.dumps({"format": FORMAT, **head}, sort_keys=True).encode()
    room = HEAD_SIZE - _FRAME.size
    if len(text) > room:
        raise _invalid("its head is too long")
    return _FRAME.pack(_MAGIC, room) + text.ljust(room)


def unpack(data: bytes, size: int) -> Head:
    """The head in the first :data:`HEAD_SIZE` bytes of a file of ``size`` bytes.

    :raises GridError: ``hibernation_invalid`` for another kind of file, or one that is cut off.
    """
    if len(data) < HEAD_SIZE or _FRAME.unpack_from(data) != (_MAGIC, HEAD_SIZE - _FRAME.size):
        raise _invalid("it is no such file, or is cut off in its head")
    try:
        head = json.loads(data[_FRAME.size : HEAD_SIZE])
        good = isinstance(head, dict) and isinstance(head["compressed"], int) and isinstance(head["uuid"], str)
    except (ValueError, KeyError):
        good = False
    if not good:
        raise _invalid("its head is damaged")
    if head.get("format") != FORMAT:
        raise _invalid(f"it is of format {head.get('format')}, {FORMAT} is known")
    if size != HEAD_SIZE + head["compressed"]:
        raise _invalid(f"it has {size} bytes and should have {HEAD_SIZE + head['compressed']}", size=size)
    return t.cast(Head, head)


def is_saved(start: bytes) -> bool:
    """Whether libvirt has finished a file, by its first bytes."""
    return start.startswith(_SAVED_MAGIC)


def same_disk(one: DiskIdentity | None, other: DiskIdentity | None) -> bool:
    """Whether a disk is unwritten since; false where it isn't known."""
    if not one or not other:
        return False
    return one.get("size") == other.get("size") and one.get("mtime_ns") == other.get("mtime_ns")


def check_fits(head: Head, uuid: str, generation: int, disk: DiskIdentity | None) -> None:
    """Refuse a memory that doesn't belong to the machine as it is.

    :param disk: the machine's disk now.
    :raises GridError: ``hibernation_foreign``, ``hibernation_stale``.
    """
    owner = str(head["uuid"])
    if owner != uuid:
        raise GridError(
            "hibernation_foreign",
            f"the memory is that of another machine: {str(head.get('name'))[:63]}, {owner[:36]}",
            remedy="Bring the machine's own file back, or start it with discard to lose what it had in memory",
            machine=owner[:36],
        )
    if head.get("generation") != generation:
        raise GridError(
            "hibernation_stale",
            f"the memory is of the machine's generation {head.get('generation')}, the machine is of {generation}: "
            "it ran elsewhere since",
            remedy=_REMEDY,
        )
    if not same_disk(head.get("disk"), disk):
        raise stale_disk()


def stale_disk() -> GridError:
    """The error of a memory whose disk was written since."""
    return GridError(
        "hibernation_stale",
        "the machine's disk was written since it was hibernated; with the memory of before, its file systems would "
        "break",
        remedy=_REMEDY,
    )
