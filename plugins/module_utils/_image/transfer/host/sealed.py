# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A connection by TLS of which many records go to and from the kernel at once. Used on both ends, by the sender as a
file beside it (standard library only)."""

from __future__ import annotations

import contextlib
import io
import socket
import ssl
import typing as t

PIECE = 2**18


class Sealed(io.RawIOBase):
    """A connection by TLS. A socket that speaks it by itself asks the kernel once to send each record of 16 KiB, and
    twice to read it; here many go at once.

    Not to be used from several threads.

    :param plain: a connected socket, which is this one's from now on.
    :param context: an ``ssl.SSLContext``, as are ``names`` the words for its ``wrap_bio``.
    :raises OSError: where the other end isn't who it should be, or gone.
    """

    def __init__(self, plain: socket.socket, context: ssl.SSLContext, **names: t.Any) -> None:
        super().__init__()
        self._plain = plain
        self._came, self._goes = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._came, self._goes, **names)
        self._memory = memoryview(bytearray(PIECE))
        try:
            while not self._shaken():
                self._more()
        except OSError:
            # The other end is told what is wrong, where it can be
            with contextlib.suppress(OSError):
                self._flush()
            raise
        self._flush()

    def _shaken(self) -> bool:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return False
        return True

    def _flush(self) -> None:
        text = self._goes.read()
        if text:
            self._plain.sendall(text)

    def _more(self) -> None:
        came = self._plain.recv_into(self._memory)
        if came:
            self._came.write(self._memory[:came])
        else:
            self._came.write_eof()

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: t.Any) -> int:
        """As many bytes as have come, at least one; 0 at the end.
        :raises OSError: where the connection is lost, or silent for longer than it may be."""
        view, at = memoryview(buffer), 0
        while at < len(view):
            try:
                came = self._tls.read(len(view) - at, view[at:])
            except ssl.SSLWantReadError:
                if at:
                    break
                self._flush()
                self._more()
                continue
            except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
                break
            if not came:
                break
            at += came
        return at

    def sendall(self, text: t.Any) -> None:
        """Send all of it. :raises OSError: where the connection is lost."""
        view = memoryview(text)
        for at in range(0, len(view), PIECE):
            self._tls.write(view[at : at + PIECE])
            self._flush()

    def settimeout(self, seconds: float | None) -> None:
        """For how long the other end may be silent."""
        self._plain.settimeout(seconds)

    def close(self) -> None:
        """End it."""
        self._plain.close()
        super().close()
