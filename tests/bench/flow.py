# SPDX-License-Identifier: GPL-3.0-or-later
"""How much TCP carries, as the receiver sees it: runs on the hosts themselves, with Python's standard library.

flow.py serve ADDRESS PORT            answer any number of senders, each with what came, until killed or silent for two
minutes flow.py send ADDRESS PORT SECONDS N   send for so long, by N connections one after the other; each prints
{"mbit": ..., "seconds": ..., "sender_mbit": ...} flow.py offload on|off DEVICE...      segmentation and receive offload
of network devices, as ethtool -K tso gso gro
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import socket
import struct
import sys
import threading
import time

CHUNK = 1 << 20
PATIENCE = 120
SIOCETHTOOL = 0x8946
SETTINGS = {"tso": 0x1F, "gso": 0x24, "gro": 0x2C}
"""linux/ethtool.h: ETHTOOL_STSO, ETHTOOL_SGSO, ETHTOOL_SGRO."""
WARM = 0.25
"""The part of a measurement that is left out at its beginning: TCP is finding its rate."""


def receive(link: socket.socket) -> None:
    """Count what comes; the sender says in its first bytes after how many seconds to begin."""
    with link:
        (skip,) = struct.unpack("!d", link.recv(8, socket.MSG_WAITALL))
        buffer, begin, counted, started, last = bytearray(CHUNK), time.monotonic(), 0, 0.0, 0.0
        while True:
            got = link.recv_into(buffer)
            last = time.monotonic()
            if not got:
                break
            if started:
                counted += got
            elif last - begin >= skip:
                started = last
        link.sendall(json.dumps({"bytes": counted, "seconds": last - started if started else 0.0}).encode())


def serve(address: str, port: int) -> None:
    """Wait for senders."""
    with socket.create_server((address, port)) as server:
        server.settimeout(PATIENCE)
        print("ready", flush=True)
        while True:
            try:
                link, dummy = server.accept()
            except TimeoutError:
                return
            link.settimeout(PATIENCE)
            threading.Thread(target=receive, args=(link,), daemon=True).start()


def send(address: str, port: int, seconds: float) -> dict[str, float]:
    """Send as fast as it goes."""
    block, sent = bytes(CHUNK // 4), 0
    with socket.create_connection((address, port), timeout=15) as link:
        link.settimeout(PATIENCE)
        link.sendall(struct.pack("!d", seconds * WARM))
        begin = time.monotonic()
        while time.monotonic() - begin < seconds:
            sent += link.send(block)
        spent = time.monotonic() - begin
        link.shutdown(socket.SHUT_WR)
        text = b""
        while True:
            part = link.recv(4096)
            if not part:
                break
            text += part
    told = json.loads(text)
    return {
        "mbit": told["bytes"] * 8e-6 / told["seconds"] if told["seconds"] else 0.0,
        "seconds": told["seconds"],
        "sender_mbit": sent * 8e-6 / spent,
    }


def offload(wanted: bool, devices: list[str]) -> None:
    """Turn it on or off; what a device can't change stays."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        for device in devices:
            for number in SETTINGS.values():
                value = ctypes.create_string_buffer(struct.pack("=II", number, wanted))
                request = struct.pack("16sP16x", device.encode(), ctypes.addressof(value))
                try:
                    fcntl.ioctl(handle, SIOCETHTOOL, request)
                except OSError as exc:
                    print(f"{device}: {exc}", file=sys.stderr)


if __name__ == "__main__":
    if sys.argv[1] == "offload":
        offload(sys.argv[2] == "on", sys.argv[3:])
    elif sys.argv[1] == "serve":
        serve(sys.argv[2], int(sys.argv[3]))
    else:
        for dummy in range(int(sys.argv[5])):
            print(json.dumps(send(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))))
