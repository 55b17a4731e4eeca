# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The file with the memory of a hibernated machine: what its head says, and whether it may be resumed (pure).

The file is one zstd stream. Its first frame is a skippable one of fixed size with the head, as JSON, so that ``zstd -dc
FILE`` gives what libvirt saved, and the head can be written anew in its place.
"""

from __future__ import annotations

import json
import struct
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError

Head = t.Dict[str, t.Any]

MEMORY, SAVED = "memory.zst", "memory.save"
"""Names in the machine's directory: the memory as it is kept; and as libvirt saves it, until it is compressed."""

JOURNEY = "asleep.json"
"""The name of the note beside it that says what the machine was before it was put to sleep for a journey only."""

FORMAT = 1
HEAD_SIZE = 2**16
# RFC 8878, section 3.1.2: a skippable frame
_MAGIC = 0x184D2A56
_FRAME = struct.Struct("<II")
# libvirt, src/qemu/qemu_saveimage.h: QEMU_SAVE_MAGIC of a whole image; one that is being written says LibvirtQemudPart.
_SAVED_MAGIC = b"LibvirtQemudSave"

_REMEDY = "Start the machine with discard to lose what it had in memory; its disk is as after a loss of power"


def _invalid(why: str, **details: t.Any) -> GridError:
    return GridError(
        "hibernation_invalid", f"the file with the machine's memory can't be used: {why}", remedy=_REMEDY, **details
    )


def pack(head: Head) -> bytes:
    """The frame with the head. :raises GridError: ``hibernation_invalid`` for one that is too long."""
    text = json.dumps({"format": FORMAT, **head}, sort_keys=True).encode()
    room = HEAD_SIZE - _FRAME.size
    if len(text) > room:
        raise _invalid("its head is too long")
    return _FRAME.pack(_MAGIC, room) + text.ljust(room)


def unpack(data: bytes, size: int) -> Head:
    """The head in the first :data:`HEAD_SIZE` bytes of a file of ``size`` bytes.

    :raises GridError: ``hibernation_invalid`` for another kind of file, or one that is not whole.
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
    return head


def is_saved(start: bytes) -> bool:
    """Whether a file that libvirt saves is whole, by its first bytes."""
    return start.startswith(_SAVED_MAGIC)


def same_disk(one: t.Any, other: t.Any) -> bool:
    """Whether a disk is as it was."""
    return bool(one) and bool(other) and all(one.get(key) == other.get(key) for key in ("size", "mtime_ns"))


def judge(head: Head, uuid: str, generation: int, disk: t.Any) -> None:
    """Refuse a memory that doesn't belong to the machine as it is.

    :param disk: ``size`` and ``mtime_ns`` of the machine's disk now.
    :raises GridError: ``hibernation_foreign``, ``hibernation_stale``.
    """
    if head["uuid"] != uuid:
        raise GridError(
            "hibernation_foreign",
            f"the memory is that of another machine: {str(head.get('name'))[:63]}, {head['uuid'][:36]}",
            remedy="Bring the machine's own file back, or start it with discard to lose what it had in memory",
            machine=head["uuid"][:36],
        )
    if head.get("generation") != generation:
        raise GridError(
            "hibernation_stale",
            f"the memory is of the machine's generation {head.get('generation')}, the machine is of {generation}: it ran elsewhere since",
            remedy=_REMEDY,
        )
    if not same_disk(head.get("disk"), disk):
        raise stale_disk()


def stale_disk() -> GridError:
    """The error of a memory that the disk has left behind."""
    return GridError(
        "hibernation_stale",
        "the machine's disk was written since it was hibernated; with the memory of before, its file systems would break",
        remedy=_REMEDY,
    )
