# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The connection of a transfer: TLS where the source answers there, otherwise SSH.

Both ends authenticate each other: by certificates of the grid's private authority, or by keys that setup has exchanged.
TLS connects faster and takes less work for each byte.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import select
import socket
import ssl
import subprocess
import tempfile
import threading
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._command import BOUND_TO_US, missing_remedy
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._image.transfer import plan
from ansible_collections.virtuoso.grid.plugins.module_utils._image.transfer.host.sealed import Sealed
from ansible_collections.virtuoso.grid.plugins.module_utils._image.transfer.host.send import FRAME, WORD, alive, widen

PATIENCE = 2.0
"""Seconds for the source to answer by TLS. Where packets to it are dropped, a transfer starts that much later."""
_LONGEST_HELLO = 1000


class Ssh:
    """A connection to the forced command of the source's account. :raises GridError: ``program_missing``."""

    NAME = "ssh"

    def __init__(self, source: plan.Source) -> None:
        self._source = source
        self._stderr = tempfile.TemporaryFile()  # pylint: disable=consider-using-with
        argv = [*BOUND_TO_US, *plan.ssh_argv(source)]
        try:
            self._process = subprocess.Popen(  # pylint: disable=consider-using-with
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr, bufsize=0
            )
        except FileNotFoundError as exc:
            raise GridError("program_missing", "ssh or setpriv is not installed", remedy=missing_remedy("ssh")) from exc
        # Without buffers they are plain files
        self._stdin, self._stdout = t.cast(io.FileIO, self._process.stdin), t.cast(io.FileIO, self._process.stdout)
        widen(self._stdout)

    def send(self, text: bytes) -> None:
        """Send all of it. :raises OSError: where the connection is gone."""
        line = memoryview(text)
        while line:
            line = line[self._stdin.write(line) :]

    def receive(self, view: memoryview, seconds: float) -> int:
        """Read into ``view``; the bytes read, 0 at the end. :raises TimeoutError: where none came in time."""
        if not select.select([self._stdout], [], [], seconds)[0]:
            raise TimeoutError
        return self._stdout.readinto(view) or 0

    def lost(self) -> GridError:
        """The error for a connection that has ended too early."""
        with contextlib.suppress(OSError):
            self._stdin.close()
        try:
            code = self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._stderr.seek(0)
        return plan.blame(self._source, code, self._stderr.read(65536).decode("utf-8", "replace"))

    def close(self) -> None:
        """Close the connection."""
        for stream in (self._stdin, self._stdout):
            with contextlib.suppress(OSError):
                stream.close()
        if self._process.poll() is None:
            self._process.terminate()
        self._process.wait()
        self._stderr.close()


class Tls:
    """A connection to the source's socket unit.

    :param plain: a connected socket. :raises OSError: where the source doesn't answer, or can't prove who it is.
    """

    NAME = "tls"

    def __init__(self, source: plan.Source, plain: socket.socket) -> None:
        self._source = source
        self._patience = PATIENCE
        with contextlib.ExitStack() as stack:
            stack.callback(plain.close)
            self._socket = self._secured(plain)
            stack.callback(self._socket.close)
            self._hello()
            stack.pop_all()

    def _secured(self, plain: socket.socket) -> Sealed:
        source = self._source
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_verify_locations(os.path.join(source.tls_dir, "ca-cert.pem"))
        context.load_cert_chain(
            os.path.join(source.tls_dir, "client-cert.pem"), os.path.join(source.tls_dir, "client-key.pem")
        )
        alive(plain)
        return Sealed(plain, context, server_hostname=source.host.strip("[]"))

    def _hello(self) -> None:
        """Require that the source admitted us: with TLS 1.3 a client sees a refused certificate only when it reads."""
        head = self._exactly(FRAME.size)
        kind, length = FRAME.unpack(head)
        if kind != WORD or length > _LONGEST_HELLO or json.loads(self._exactly(length)).get("hello") is not True:
            raise OSError("it speaks another language")

    def _exactly(self, length: int) -> bytes:
        text = b""
        while len(text) < length:
            more = bytearray(length - len(text))
            came = self._socket.readinto(more)
            if not came:
                raise ConnectionResetError("it ended the connection")
            text += more[:came]
        return text

    def send(self, text: bytes) -> None:
        """Send all of it. :raises OSError: where the connection is gone."""
        self._socket.sendall(text)

    def receive(self, view: memoryview, seconds: float) -> int:
        """Read into ``view``; the bytes read, 0 at the end. :raises TimeoutError: where none came in time."""
        if seconds != self._patience:
            self._socket.settimeout(seconds)
            self._patience = seconds
        try:
            return self._socket.readinto(view)
        except socket.timeout as exc:  # not TimeoutError before Python 3.10
            raise TimeoutError from exc

    def lost(self) -> GridError:
        """The error for a connection that has ended too early."""
        return plan.broken(self._source)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


Channel = t.Union[Ssh, Tls]


def reach(source: plan.Source) -> socket.socket | None:
    """Connect to the source's TLS port; ``None`` where nothing answers there."""
    if not source.tls_port:
        return None
    with contextlib.suppress(OSError):
        return socket.create_connection((source.host.strip("[]"), source.tls_port), timeout=PATIENCE)
    return None


class Connecting:
    """Connects in a thread while its user does other things: by TLS, or by SSH where TLS fails for any reason.

    SSH authenticates the source by itself.

    :raises GridError: ``program_missing``.
    """

    def __init__(self, source: plan.Source) -> None:
        self._source = source
        self._made: Channel | None = None
        plain = reach(source)
        self._thread: threading.Thread | None = None
        if plain is None:
            self._made = Ssh(source)
            return
        self._thread = threading.Thread(target=self._secure, args=(plain,), daemon=True)
        self._thread.start()

    def _secure(self, plain: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._made = Tls(self._source, plain)

    def channel(self) -> Channel:
        """The connection; waits until it is made. :raises GridError: ``program_missing``."""
        if self._thread is not None:
            self._thread.join()
        if self._made is None:
            # Not in the thread: ssh is killed when the thread that started it ends (setpriv --pdeathsig)
            self._made = Ssh(self._source)
        return self._made

    def close(self) -> None:
        """Close the connection."""
        if self._thread is not None:
            self._thread.join()
        if self._made is not None:
            self._made.close()
