# SPDX-License-Identifier: GPL-3.0-or-later
"""The program that is the lab's WAN: joins one tap a host, with a firewall, a rate and a delay on each way.

Usage: wan_daemon.py SETTINGS. The file, made by wan.py, is read at the start and at each SIGHUP. The taps are this
process's own and go with it. It ends when its file is gone or another WAN's, when the lab's bridge is gone, and after
some hours in any case.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import select
import signal
import socket
import struct
import sys
import time
from pathlib import Path

from wan_paths import Firewall, Port, Wan

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 0x2, 0x1000
PR_SET_TIMERSLACK = 29
FRAMES_AT_A_TIME = 64
CHECK = 1.0
LIFETIME = 6 * 3600.0


def open_tap(name: str) -> int:
    """A tap's file; the device goes when it is closed."""
    handle = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(handle, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    return handle


class Daemon:
    """The taps and what happens between them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reload = True
        settings = json.loads(path.read_text(encoding="utf-8"))
        self._id = settings["id"]
        self._bridge = settings["bridge"]
        hosts = settings["hosts"]
        self.taps = {open_tap(host["tap"]): name for name, host in hosts.items()}
        self.handles = {name: handle for handle, name in self.taps.items()}
        self.wan = Wan(
            {name: Port(bytes.fromhex(host["mac"].replace(":", ""))) for name, host in hosts.items()}, rate=0, delay=0
        )
        signal.signal(signal.SIGHUP, lambda *_: setattr(self, "_reload", True))

    def settle(self) -> bool:
        """Read the settings anew; false when they are gone or another WAN's."""
        self._reload = False
        try:
            settings = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return False
        wan, now = self.wan, time.monotonic()
        wan.rate, wan.delay = settings["rate"], settings["delay"]
        wan.delays = {frozenset(entry["between"]): entry["delay"] for entry in settings["delays"]}
        # The file has the wall's clock, which other processes share.
        wan.cuts = {frozenset(entry["between"]): now + entry["until"] - time.time() for entry in settings["cuts"]}
        for name, host in settings["hosts"].items():
            if wan.ports[name].firewall.kind != host["firewall"]:
                wan.ports[name].firewall = Firewall(host["firewall"])
        return settings["id"] == self._id

    def run(self) -> None:
        """Carry frames until it is to end."""
        end, checked = time.monotonic() + LIFETIME, 0.0
        while True:
            now = time.monotonic()
            if self._reload or now - checked > CHECK:
                checked = now
                if now > end or self._bridge not in dict(socket.if_nameindex()).values() or not self.settle():
                    return
            following = self.wan.next_time()
            wait = CHECK if following is None else min(max(following - now, 0.0), CHECK)
            ready, dummy, dummy = select.select(list(self.taps), [], [], wait)
            for handle in ready:
                self._read(handle)
            for name, frame in self.wan.due(time.monotonic()):
                # A tap that is down, or full, loses frames as any line does.
                with contextlib.suppress(OSError):
                    os.write(self.handles[name], frame)

    def _read(self, handle: int) -> None:
        name, now = self.taps[handle], time.monotonic()
        for dummy in range(FRAMES_AT_A_TIME):
            try:
                frame = os.read(handle, 65535)
            except OSError:
                return
            self.wan.take(name, frame, now)


if __name__ == "__main__":
    # Waits of microseconds instead of the usual rounding to 50.
    ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1000, 0, 0, 0)
    with contextlib.suppress(OSError):
        os.nice(-15)
    Daemon(Path(sys.argv[1])).run()
