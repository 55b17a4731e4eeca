# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks running machines by ARP whether they have an address (RFC 826), each through the host's end of its own card.

So the question reaches this guest alone, whatever filters or links its network has, and on networks on which the host
has no address; and another machine with the same address is not taken for it.
"""

from __future__ import annotations

import contextlib
import ipaddress
import select
import socket
import struct
import time
import typing as t

PATIENCE = 0.3
"""Seconds to wait for answers, for all machines together. A guest answers in milliseconds, an emulated one in tens."""

_ALL_FRAMES, _ARP = 0x0003, 0x0806
_REQUEST, _REPLY = 1, 2
_BROADCAST = b"\xff" * 6
# Ethernet header; then hardware and protocol type, their address lengths, operation, sender's and target's addresses
_FORMAT = struct.Struct("!6s6sHHHBBH6s4s6s4s")


class Question(t.NamedTuple):
    """Whether the guest with this MAC address, behind this network device of the host, has this IPv4 address."""

    device: str
    mac: str
    address: str


def _bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def request(question: Question, own: bytes) -> bytes:
    """The frame that asks (pure). It is a probe, without a sender's address (RFC 5227), so that the guest learns
    nothing from it.

    :param own: the MAC address to answer to.
    """
    target = ipaddress.IPv4Address(question.address).packed
    return _FORMAT.pack(_BROADCAST, own, _ARP, 1, 0x0800, 6, 4, _REQUEST, own, b"\0" * 4, b"\0" * 6, target)


def answers(question: Question, frame: bytes) -> bool:
    """Whether a frame from the guest says that it has the address (pure): a reply, or its own announcement."""
    if len(frame) < _FORMAT.size:
        return False
    fields = _FORMAT.unpack_from(frame)
    mac = _bytes(question.mac)
    return (
        fields[1] == fields[8] == mac
        and fields[2:6] == (_ARP, 1, 0x0800, 6)
        and fields[7] in (_REQUEST, _REPLY)
        and fields[9] == ipaddress.IPv4Address(question.address).packed
    )


def ask(questions: t.Iterable[Question], patience: float = PATIENCE) -> set[Question]:
    """Those of ``questions`` whose guest says yes within ``patience`` seconds.

    One that can't be asked, for want of privileges or because its device has just gone away, is left out.
    """
    answered: set[Question] = set()
    with contextlib.ExitStack() as stack:
        # The bridge takes ARP frames off its ports before sockets for ARP see them: those for all frames come first.
        opened: dict[socket.socket, Question] = {}
        for question in dict.fromkeys(questions):
            with contextlib.suppress(OSError, ValueError):
                raw = stack.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL_FRAMES)))
                raw.setblocking(False)
                raw.bind((question.device, _ALL_FRAMES))
                raw.send(request(question, raw.getsockname()[4]))
                opened[raw] = question
        end = time.monotonic() + patience
        while opened and (left := end - time.monotonic()) > 0:
            for raw in select.select(list(opened), [], [], left)[0]:
                try:
                    said = answers(opened[raw], raw.recv(_FORMAT.size))
                except BlockingIOError:
                    continue
                except OSError:
                    del opened[raw]
                    continue
                if said:
                    answered.add(opened.pop(raw))
    return answered
