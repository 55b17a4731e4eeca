# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The sender: a program on image servers and providers that sends other hosts the parts of layers they request.

It runs as the forced command of the account ``virtuoso``, started by sshd for one connection. With ``--tls`` systemd
starts it for one connection, on standard input, from a host with a certificate of the grid's authority. It uses the
standard library only, and for TLS ``sealed.py`` beside it. Requests are lines of JSON on standard input:

* ``{"get": "manifest", "name": "tiny@1"}``, ``{"get": "index", "digest": "sha256:..."}``, ``"boot"`` likewise: one
  small file.
* ``{"get": "ranges", "digest": ..., "ranges": [[offset, bytes], ...], "level": 0, "rate": null, "spare": false}``:
  parts of a layer's file, one after the other, at most ``rate`` bytes a second. A ``level`` other than 0 is the level
  at which zstd begins; it adapts to the link. With ``spare`` it uses one thread and a low level.

Answers are frames: a byte (0: data, 1: a word, which is a JSON object), four bytes of length, the content. The last
frame of an answer is a word with ``end`` or ``error``. A word with ``waiting`` comes while all transfer slots of this
host are taken, one with ``hello`` as soon as a host was admitted by TLS.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import importlib.util
import io
import json
import mmap
import os
import re
import struct
import subprocess
import sys
import threading
import time
import typing as t

if t.TYPE_CHECKING:
    import socket

    from ansible_collections.virtuoso.grid.plugins.module_utils._image.transfer.host.sealed import Sealed

FRAME = struct.Struct(">BI")
DATA, WORD = 0, 1
PIECE = 2**18
LARGE = 2**20
"""Bytes that the kernel is asked to move in one call."""
HIGHEST = 9
"""The highest level of zstd. Levels above it take three times the work for one percent of the bytes."""
STEADY = 5
"""The highest level for requests that begin at this or a lower one: above it, zstd falls behind a link of 100 Mbit/s
where data are hard to compress."""
FRUGAL = 3
"""The highest level while other programs need the processors."""
MAX_REQUEST = 2**26
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_IMAGE = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}@[A-Za-z0-9][A-Za-z0-9._-]{0,62}", re.ASCII)
GREETING = 20.0
"""Seconds for the other end to complete the TLS handshake."""
_SAY_AGAIN = 2.0
_LOOK_AGAIN = 0.1


class Refused(Exception):
    """A request that can't be served: its arguments are a code, and why."""


class Pace:
    """Limits a stream to a rate in bytes a second. A delayed stream may catch up by at most 0.1 s of its rate."""

    def __init__(self, rate: float | None, clock: t.Callable[[], float] = time.monotonic) -> None:
        self.rate = rate
        # A slow stream goes in small pieces, so that the other end never waits long for a byte
        self.piece = PIECE if not rate else int(min(PIECE, max(512, rate / 2)))
        self.clock = clock
        self._due = clock()

    def pause(self, size: int) -> float:
        """Seconds to wait before the next ``size`` bytes are sent."""
        if not self.rate:
            return 0.0
        now = self.clock()
        self._due = max(self._due, now - 0.1)
        wait = self._due - now
        self._due += size / self.rate
        return max(0.0, wait)


def compressor(level: int, spare: bool) -> list[str]:
    """The arguments of zstd(1).

    ``--long=27`` finds repetitions far apart; up to 27 the receiver needs no option for it. ``--adapt`` raises the
    level while the link is the bottleneck, and lowers it while zstd is. ``-B8M`` makes small jobs: with two threads
    zstd would otherwise first wait for four windows of input, and keep them in memory.

    :param spare: use one thread and a low level, however slow the link is.
    """
    if spare:
        return ["zstd", "-q", "-c", "-T1", f"-{min(level, FRUGAL)}", "--long=27"]
    threads = min(2, len(os.sched_getaffinity(0)))
    most = STEADY if level <= STEADY else HIGHEST
    return [
        "zstd",
        "-q",
        "-c",
        f"-T{threads}",
        f"--adapt=min=1,max={most}",
        f"-{min(level, HIGHEST)}",
        "--long=27",
        "-B8M",
    ]


def widen(pipe: t.IO[bytes] | io.RawIOBase) -> None:
    """Enlarge a pipe's buffer, see F_SETPIPE_SZ in fcntl(2). Best effort: not being allowed to is not an error."""
    with contextlib.suppress(OSError):
        fcntl.fcntl(pipe, 1031, LARGE)  # F_SETPIPE_SZ; Python has the name since 3.10


class Pipe:
    """The stream for answers over SSH: standard output."""

    def __init__(self, stream: t.BinaryIO) -> None:
        self._stream = stream

    def write(self, text: bytes) -> None:
        """Send all of ``text``."""
        self._stream.write(text)
        self._stream.flush()

    def part(self, descriptor: int, at: int, length: int) -> int:
        """Send a part of a file, copied by the kernel; the bytes sent, 0 at the file's end."""
        return os.sendfile(self._stream.fileno(), descriptor, at, length)


class Secured:
    """The stream for answers over TLS."""

    def __init__(self, connection: Sealed) -> None:
        self._connection = connection
        self._memory = memoryview(mmap.mmap(-1, PIECE))

    def write(self, text: bytes) -> None:
        """Send all of ``text``."""
        self._connection.sendall(text)

    def part(self, descriptor: int, at: int, length: int) -> int:
        """Send a part of a file; the bytes sent, 0 at the file's end."""
        done = os.preadv(descriptor, [self._memory[: min(length, PIECE)]], at)
        self._connection.sendall(self._memory[:done])
        return done


class Sender:
    """Serves the requests of one connection.

    :param images: directory of the image store. :param slots: directory for lock files.
    :param parallel: the number of hosts that are served at a time.
    """

    def __init__(
        self, images: str, slots: str, parallel: int, stdin: t.BinaryIO, stdout: t.Union[Pipe, Secured]
    ) -> None:
        self.images = images
        self.slots = slots
        self.parallel = parallel
        self.stdin = stdin
        self.stdout = stdout

    def serve(self) -> None:
        """Answer requests until the other end closes the connection."""
        while True:
            line = self.stdin.readline(MAX_REQUEST)
            if not line:
                return
            try:
                self._word(end=True, **self._answer(line))
            except Refused as exc:
                self._word(error={"code": exc.args[0], "msg": exc.args[1]})
            except OSError as exc:
                self._word(error={"code": "io_error", "msg": f"{exc.strerror}: {exc.filename or self.images}"})

    def _frame(self, kind: int, text: bytes) -> None:
        self.stdout.write(FRAME.pack(kind, len(text)) + text)

    def greet(self) -> None:
        """Tell the other end that it was admitted: with TLS 1.3 a client can't know."""
        self._word(hello=True)

    def _word(self, **words: object) -> None:
        self._frame(WORD, json.dumps(words).encode())

    def _answer(self, line: bytes) -> dict[str, object]:
        """Send the data of one answer; the fields of its last word. :raises Refused: for a request that can't be
        served."""
        try:
            request = json.loads(line)
            what = request["get"]
            if what == "manifest":
                name = str(request["name"])
                if not _IMAGE.fullmatch(name):
                    raise Refused("bad_request", "that is no name of an image")
                return self._small("manifests", name + ".json")
            digest = str(request["digest"])
            file = digest.replace(":", "-")
            if not _DIGEST.fullmatch(digest):
                raise Refused("bad_request", "that is no digest")
            if what in ("index", "boot"):
                return self._small("layers", f"{file}.{what}")
            ranges = [(int(at), int(length)) for at, length in request["ranges"]]
            return self._ranges(
                file + ".qcow2", ranges, int(request.get("level") or 0), request.get("rate"), bool(request.get("spare"))
            )
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as exc:
            raise Refused("bad_request", "that is no request") from exc

    @contextlib.contextmanager
    def _opened(self, directory: str, file: str) -> t.Iterator[int]:
        try:
            descriptor = os.open(os.path.join(self.images, directory, file), os.O_RDONLY | os.O_NOFOLLOW)
        except FileNotFoundError as exc:
            raise Refused("missing", f"{directory}/{file} is not here") from exc
        try:
            # Who wants to remove the file checks this lock
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            yield descriptor
        finally:
            os.close(descriptor)

    def _small(self, directory: str, file: str) -> dict[str, object]:
        sent = 0
        with self._opened(directory, file) as descriptor:
            while True:
                text = os.read(descriptor, PIECE)
                if not text:
                    return {"sent": sent}
                sent += len(text)
                self._frame(DATA, text)

    def _ranges(
        self, file: str, ranges: list[tuple[int, int]], level: int, rate: float | None, spare: bool
    ) -> dict[str, object]:
        rate = None if rate is None else float(rate)
        if not 0 <= level <= 19 or (rate is not None and rate <= 0):
            raise Refused("bad_request", "that is no level or no rate")
        with self._opened("layers", file) as descriptor, self._slot():
            end = os.fstat(descriptor).st_size
            if any(at < 0 or length < 0 or at + length > end for at, length in ranges):
                raise Refused("cut_off", f"layers/{file} has only {end} bytes")
            begin = time.monotonic()
            pace = Pace(rate)
            waited: float | None = None
            if level:
                sent, waited = self._compressed(descriptor, ranges, compressor(level, spare), pace)
            else:
                sent = self._plain(descriptor, ranges, pace)
            return {"sent": sent, "seconds": time.monotonic() - begin, "compressing": waited}

    @staticmethod
    def _pour(descriptor: int, ranges: t.Iterable[tuple[int, int]], into: int) -> None:
        """Write parts of a file to a pipe, copied by the kernel."""
        for at, length in ranges:
            while length:
                done = os.sendfile(into, descriptor, at, min(length, LARGE))
                if done == 0:
                    raise Refused("cut_off", "the layer's file became shorter")
                at, length = at + done, length - done

    def _paced(self, text: bytes, pace: Pace) -> None:
        pause = pace.pause(len(text))
        if pause:
            time.sleep(pause)
        self._frame(DATA, text)

    def _plain(self, descriptor: int, ranges: t.Iterable[tuple[int, int]], pace: Pace) -> int:
        sent = 0
        size = pace.piece if pace.rate else LARGE
        for at, length in ranges:
            while length:
                piece = min(length, size)
                pause = pace.pause(piece)
                if pause:
                    time.sleep(pause)
                self.stdout.write(FRAME.pack(DATA, piece))
                self._from_file(descriptor, at, piece)
                at, length, sent = at + piece, length - piece, sent + piece
        return sent

    def _from_file(self, descriptor: int, at: int, length: int) -> None:
        """Send exactly ``length`` bytes, because the frame's head has announced them. A file that was cut meanwhile is
        padded with zeros; the receiver's verification finds that."""
        while length:
            done = self.stdout.part(descriptor, at, length)
            if done == 0:
                self.stdout.write(bytes(length))
                return
            at, length = at + done, length - done

    def _compressed(
        self, descriptor: int, ranges: t.Iterable[tuple[int, int]], argv: list[str], pace: Pace
    ) -> tuple[int, float]:
        """Send parts of a file through zstd.

        :returns: the bytes sent, and the seconds spent waiting for zstd. The rest of the time went to the link.
        """
        sent, waited = 0, 0.0
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            stdin, stdout = t.cast(t.BinaryIO, process.stdin), t.cast(t.BinaryIO, process.stdout)
            widen(stdin)
            # Data that were compressed ahead keep the link busy while zstd works on a hard part.
            widen(stdout)
            failed: list[BaseException] = []

            def feed() -> None:
                try:
                    with stdin:
                        self._pour(descriptor, ranges, stdin.fileno())
                except (OSError, Refused) as exc:
                    failed.append(exc)

            feeder = threading.Thread(target=feed, daemon=True)
            feeder.start()
            while True:
                begin = time.monotonic()
                text = os.read(stdout.fileno(), pace.piece)
                waited += time.monotonic() - begin
                if not text:
                    break
                self._paced(text, pace)
                sent += len(text)
            feeder.join()
        if failed or process.returncode:
            raise (
                failed[0]
                if failed and isinstance(failed[0], Refused)
                else Refused("io_error", "the layer could not be compressed")
            )
        return sent, waited

    @contextlib.contextmanager
    def _slot(self) -> t.Iterator[None]:
        """Take one of this host's transfer slots; waits until one is free.

        A slot is a lock on one of ``parallel`` files, which ends with this process.
        """
        with contextlib.ExitStack() as stack:
            files = [
                stack.enter_context(open(os.path.join(self.slots, f".slot-{each}"), "ab"))
                for each in range(self.parallel)
            ]
            said = 0.0
            while not any(map(_locked, files)):
                if time.monotonic() - said > _SAY_AGAIN:
                    said = time.monotonic()
                    self._word(waiting=True)
                time.sleep(_LOOK_AGAIN)
            yield


def _locked(file: t.BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def secured(directory: str, user: str) -> Sealed:
    """Make the connection on standard input a TLS connection with a host that has a certificate of the authority.

    The process starts as root, to read the host's key, and becomes ``user`` before it reads from the network.

    :param directory: has the authority's certificate, the host's and its key, under the names that QEMU gives them.
    :raises OSError: where the other end has no such certificate.
    """
    # Imported here because SSH connections don't need them
    import pwd
    import socket
    import ssl

    spec = importlib.util.spec_from_file_location(
        "sealed", os.path.join(os.path.dirname(os.path.abspath(__file__)), "sealed.py")
    )
    if spec is None or spec.loader is None:
        raise OSError("sealed.py is missing")
    sealed = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sealed)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(os.path.join(directory, "server-cert.pem"), os.path.join(directory, "server-key.pem"))
    context.load_verify_locations(os.path.join(directory, "ca-cert.pem"))
    entry = pwd.getpwnam(user)
    os.setgroups([])
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)
    plain = socket.socket(fileno=os.dup(0))
    # A silent client must not keep the connection
    plain.settimeout(GREETING)
    alive(plain)
    connection: Sealed = sealed.Sealed(plain, context, server_side=True)
    connection.settimeout(None)
    return connection


def alive(connection: socket.socket) -> None:
    """Let the kernel end the connection when the other end has gone silently, see tcp(7)."""
    import socket

    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_NODELAY", 1),
        ("TCP_KEEPIDLE", 15),
        ("TCP_KEEPINTVL", 15),
        ("TCP_KEEPCNT", 4),
        ("TCP_USER_TIMEOUT", 60000),
    ):
        connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def main() -> None:
    """Serve one connection, by SSH or TLS."""
    parser = argparse.ArgumentParser(description="Give layers of this host's image store to another host.")
    parser.add_argument("images", help="the directory of the image store")
    parser.add_argument("--slots", default=os.path.expanduser("~"), help="a directory for locks")
    parser.add_argument("--parallel", type=int, default=4, help="hosts that are served at a time; others wait")
    parser.add_argument("--tls", help="a directory with certificates; standard input is the connection then")
    parser.add_argument("--user", default="virtuoso", help="who reads the store, with --tls")
    arguments = parser.parse_args()
    # Machines on this host come first
    os.nice(5)
    try:
        if arguments.tls:
            connection = secured(arguments.tls, arguments.user)
            sender = Sender(
                arguments.images,
                arguments.slots,
                arguments.parallel,
                io.BufferedReader(connection),
                Secured(connection),
            )
            sender.greet()
        else:
            sender = Sender(
                arguments.images, arguments.slots, arguments.parallel, sys.stdin.buffer, Pipe(sys.stdout.buffer)
            )
        sender.serve()
    except BrokenPipeError:
        pass
    except OSError as exc:
        if not arguments.tls:
            raise
        sys.stderr.write(f"the connection ended: {exc}\n")
        sys.stderr.flush()
    # Data left in buffers have no receiver any more
    os._exit(0)  # pylint: disable=protected-access


if __name__ == "__main__":
    main()
