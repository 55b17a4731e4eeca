# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Guests of one sector: they boot in a second even without KVM, and sleep until they are asked something.

Disks of 1 MiB for tests of a machine's life, where no operating system is needed; and what these tests read of the
modules' results.
"""

from __future__ import annotations

import time
import typing as t

MESSAGE = b"virtuoso login: \0"

_PRINT = bytes.fromhex(
    "31c0 8ed8"  # xor ax,ax; mov ds,ax
    "be 2f7c"  # mov si,message
    "ac 84c0 7406 b40e cd10 ebf5"  # next: lodsb; test al,al; jz +6; mov ah,0x0e; int 0x10; jmp next
)
# The ACPI registers of QEMU's q35 as its BIOS places them: PM1_STS 0x600, PM1_EN 0x602, PM1_CNT 0x604
_OBEY = bytes.fromhex(
    "ba0206 b80001 ef"  # mov dx,0x602; mov ax,0x0100; out dx,ax      the power button is to be told
    "fb f4 ba0006 ed f6c401 74f5"  # wait: sti; hlt; mov dx,0x600; in ax,dx; test ah,1; jz wait
    "ba0406 b80020 ef"  # mov dx,0x604; mov ax,0x2000; out dx,ax      off
)
_SLEEP = bytes.fromhex("fa f4 ebfc")  # again: cli; hlt; jmp again


def _disk(code: bytes) -> bytes:
    return code.ljust(510, b"\0") + b"\x55\xaa" + bytes(2**20 - 512)


# Reads 4 KiB after 4 KiB of the first 128 KiB by the BIOS, over and over
_READ = bytes.fromhex(
    "31c0 8ed8"  # xor ax,ax; mov ds,ax
    "be 197c b442 b280 cd13"  # again: mov si,packet; mov ah,0x42; mov dl,0x80; int 0x13
    "8006 217c 08"  # add byte [packet.block],8
    "ebf0 9090909090"  # jmp again; nop...
    "1000 0800 0080 0000 0000000000000000"  # packet: 8 sectors to 0:0x8000, block
)


def reading() -> bytes:
    """A raw disk whose guest reads it without end."""
    return _disk(_READ)


COUNTER = 0x500
"""Where in its memory :func:`counting` counts."""

_COUNT = bytes.fromhex(
    "31c0 8ed8"  # xor ax,ax; mov ds,ax
    "66c706 0005 00000000"  # mov dword [0x500],0
    "fb"  # sti
    "f4 66ff06 0005 ebf8"  # again: hlt; inc dword [0x500]; jmp again
)


def counting() -> bytes:
    """A raw disk whose guest counts the ticks of its clock, 18 a second, at :data:`COUNTER`, and doesn't hear the power
    button."""
    return _disk(_COUNT)


def polite() -> bytes:
    """A raw disk whose guest writes :data:`MESSAGE` on the screen and powers off when the button is pressed."""
    return _disk(_PRINT + _OBEY + _SLEEP + MESSAGE)


def deaf() -> bytes:
    """A raw disk whose guest does nothing, and doesn't hear the power button."""
    return _disk(_SLEEP)


Row = t.Dict[str, t.Any]

KEYS = (
    "name",
    "uuid",
    "changed",
    "actions",
    "changes",
    "state",
    "restart_required",
    "pending",
    "ignored",
    "mac",
    "snapshots",
)


def only(result: Row) -> Row:
    """The result of the one machine that there is."""
    (machine,) = result["machines"]
    return machine


def codes(result: Row) -> list[str | None]:
    """The failure of each machine, ``None`` for one that was served."""
    return [machine["failure"]["code"] if machine.get("failed") else None for machine in result["machines"]]


def foretold(result: Row) -> list[Row]:
    """What check mode says of each machine, and the real run must say as well."""
    return [{key: machine.get(key) for key in KEYS} for machine in result["machines"]]


def count(provider: t.Any, name: str = "it-c") -> int:
    """What the guest of :func:`counting` has counted."""
    said = provider.shell(f"virsh qemu-monitor-command {name} --hmp 'xp /1wx {COUNTER:#x}'")
    return int(said.split(":")[1].strip(), 16)


def counted(provider: t.Any, least: int = 20) -> int:
    """The same, once it is at least so much."""
    end = time.monotonic() + 40
    while (number := count(provider)) < least:
        assert time.monotonic() < end, f"the guest has counted to {number} only"
        time.sleep(0.1)
    return number
