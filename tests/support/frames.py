# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Numbered broadcast frames: sent at a rate, and counted by number. Runs on the lab's hosts, with Python's standard
library.

frames.py send DEVICE COUNT RATE TAG       prints {"sent": ...} frames.py count DEVICE COUNT SECONDS TAG   prints
{"once": ..., "more": ..., "missing": ...} after so many seconds, or a second after all came
"""

from __future__ import annotations

import collections
import json
import socket
import struct
import sys
import time

ETHERTYPE = 0x88B5
"""For experiments (IEEE 802)."""
PACKET_OUTGOING = 4
QUIET = 1.0


def send(device: str, count: int, rate: float, tag: int) -> dict[str, int]:
    """Send them, evenly spread."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as out:
        out.bind((device, ETHERTYPE))
        own = out.getsockname()[4]
        begin = time.monotonic()
        for number in range(count):
            pause = begin + number / rate - time.monotonic()
            if pause > 0:
                time.sleep(pause)
            out.send((b"\xff" * 6 + own + struct.pack("!HII", ETHERTYPE, tag, number)).ljust(60, b"\0"))
    return {"sent": count}


def count(device: str, wanted: int, seconds: float, tag: int) -> dict[str, int]:
    """How many came once, more than once, and not at all."""
    seen: collections.Counter[int] = collections.Counter()
    end, complete = time.monotonic() + seconds, None
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETHERTYPE)) as heard:
        heard.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        heard.bind((device, ETHERTYPE))
        heard.settimeout(0.1)
        print("ready", file=sys.stderr, flush=True)
        while time.monotonic() < end and (complete is None or time.monotonic() < complete + QUIET):
            try:
                frame, address = heard.recvfrom(2048)
            except TimeoutError:
                continue
            if address[2] != PACKET_OUTGOING and len(frame) >= 22:
                kind, own, number = struct.unpack_from("!HII", frame, 12)
                if (kind, own) == (ETHERTYPE, tag):
                    seen[number] += 1
                    if len(seen) == wanted and complete is None:
                        complete = time.monotonic()
    once = sum(times == 1 for times in seen.values())
    return {"once": once, "more": len(seen) - once, "missing": wanted - len(seen)}


if __name__ == "__main__":
    if sys.argv[1] == "send":
        print(json.dumps(send(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5]))))
    else:
        print(json.dumps(count(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5]))))
