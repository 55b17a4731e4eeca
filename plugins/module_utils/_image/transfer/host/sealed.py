# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fast TLS connection: many records are passed to and from the kernel in one call.

Used at both ends; the sender loads it as a file beside itself. Standard library only.
"""

from __future__ import annotations

import contextlib
import io
import socket
import ssl
import typing as t

if t.TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

PIECE = 2**18


class Sealed(io.RawIOBase):
    """A TLS connection, for one thread.

    Python's own ``SSLSocket`` makes one system call to send each record of 16 KiB and two to read it; here one call
    passes many.

    :param plain: a connected socket, owned by this object from now on.
    :param server_side: be the server; without it ``server_hostname`` is the name that the server must have.
    :raises OSError: where the other end can't prove who it is, or has gone.
    """

    def __init__(
        self,
        plain: socket.socket,
        context: ssl.SSLContext,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
    ) -> None:
        super().__init__()
        self._plain = plain
        self._came, self._goes = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._came, self._goes, server_side, server_hostname)
        self._memory = memoryview(bytearray(PIECE))
        try:
            while not self._shaken():
                self._more()
        except OSError:
            # Send the alert that tells the other end what is wrong
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
        """Always true."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Read the bytes that have come, at least one; 0 at the end.

        :raises OSError: where the connection is lost, or silent for longer than ``settimeout`` allows.
        """
        view, at = memoryview(buffer), 0
        while at < len(view):
            try:
                # With a buffer it returns a number
                came = t.cast(int, self._tls.read(len(view) - at, view[at:]))
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

    def sendall(self, text: ReadableBuffer) -> None:
        """Send all of it. :raises OSError: where the connection is lost."""
        view = memoryview(text)
        for at in range(0, len(view), PIECE):
            self._tls.write(view[at : at + PIECE])
            self._flush()

    def settimeout(self, seconds: float | None) -> None:
        """Set how long the other end may be silent; ``None`` for any time."""
        self._plain.settimeout(seconds)

    def close(self) -> None:
        """Close the connection."""
        self._plain.close()
        super().close()
