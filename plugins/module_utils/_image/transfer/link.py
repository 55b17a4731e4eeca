# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The destination's end of a connection to a source: sends one request after the other and reads the answers."""

from __future__ import annotations

import io
import json
import subprocess
import threading
import time
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._command import BOUND_TO_US, missing_remedy
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.boot import MAX_TEXT
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.reference import MAX_MANIFEST
from ansible_collections.virtuoso.grid.plugins.module_utils._image.transfer import plan
from ansible_collections.virtuoso.grid.plugins.module_utils._image.transfer.channel import Channel, Connecting
from ansible_collections.virtuoso.grid.plugins.module_utils._image.transfer.direct import Buffers
from ansible_collections.virtuoso.grid.plugins.module_utils._image.transfer.host.send import DATA, FRAME, WORD, widen
from ansible_collections.virtuoso.grid.plugins.module_utils._names import shorten

_MAX_FRAME = 2**20
_MAX_INDEX = 2**30
_READ = 2**20
SILENCE = 60.0
"""Seconds without a byte after which the source counts as lost: its SSH server may be alive while its sender hangs."""


class Link:
    """A connection to a source.

    ``received``: bytes that came so far. ``measured``: of the last answer, the bytes of its data and the seconds from
    the first of them to the last. ``waited``: seconds that the source waited for its compressor in the last answer.
    ``buffers``: of the parts that are yielded; a caller that is done with a part may give it back.
    """

    def __init__(self, source: plan.Source) -> None:
        self.source = source
        self.received = 0
        self.waited: float | None = None
        self.measured: tuple[int, float] = (0, 0.0)
        self._head = memoryview(bytearray(FRAME.size))
        self.buffers = Buffers(_MAX_FRAME)
        self._connecting = Connecting(source)

    @property
    def channel(self) -> Channel:
        """The connection; waits until it is made. :raises GridError: ``program_missing``."""
        return self._connecting.channel()

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *dummy: object) -> None:
        self._connecting.close()

    def manifest(self, name: str) -> bytes:
        """The source's manifest of an image, not checked yet. :raises GridError: ``manifest_missing``."""
        return self._small({"get": "manifest", "name": name}, MAX_MANIFEST, "manifest_missing")

    def index(self, digest: str) -> bytes:
        """A layer's index, not checked yet. :raises GridError: ``layer_missing``."""
        return self._small({"get": "index", "digest": digest}, _MAX_INDEX, "layer_missing")

    def boot(self, digest: str) -> bytes:
        """A layer's boot record, not checked yet. :raises GridError: ``layer_missing`` where there is none."""
        return self._small({"get": "boot", "digest": digest}, MAX_TEXT, "layer_missing")

    def _small(self, request: t.Mapping[str, object], limit: int, code: str) -> bytes:
        text = bytearray()
        for part in self.ask(request, code):
            text += part
            self.buffers.give(part)
            if len(text) > limit:
                raise plan.nonsense(self.source, "sends more than such a file may have")
        return bytes(text)

    def ranges(
        self, digest: str, ranges: t.Sequence[tuple[int, int]], level: int, rate: int | None, spare: bool = False
    ) -> t.Iterator[bytes | memoryview]:
        """Request parts of a layer's file; their content is yielded in pieces of any length.

        :param ranges: (offset, bytes) of each part. :param level: of zstd, 0 for none. :param rate: bytes a second.
        :param spare: let the source use little processor time, because machines are booting.
        :raises GridError: ``layer_missing``.
        """
        request = {"get": "ranges", "digest": digest, "ranges": ranges, "level": level, "rate": rate, "spare": spare}
        answer = self.ask(request, "layer_missing")
        return _unpacked(answer, self.buffers) if level else answer

    def ask(self, request: t.Mapping[str, object], code: str) -> t.Iterator[memoryview]:
        """Send a request and yield the data of its answer.

        :param code: of the error where the source doesn't have what is requested.
        """
        self.measured = (0, 0.0)
        first = 0.0
        try:
            self.channel.send(json.dumps(request).encode() + b"\n")
        except OSError as exc:
            raise self.channel.lost() from exc
        while True:
            kind, length = FRAME.unpack(self._fill(self._head))
            first = first or time.monotonic()
            if kind not in (DATA, WORD) or length > _MAX_FRAME:
                raise plan.nonsense(self.source, "speaks another language")
            text = self._fill(self.buffers.take(length))
            self.received += FRAME.size + length
            if kind == WORD:
                word = bytes(text)
                self.buffers.give(text)
                if self._is_end(word, code):
                    return
                continue
            self.measured = (self.measured[0] + length, time.monotonic() - first)
            yield text

    def _is_end(self, text: bytes, code: str) -> bool:
        """Read a word of the source's; whether the answer ends with it. :raises GridError: for an error."""
        try:
            word = json.loads(text)
        except ValueError as exc:
            raise plan.nonsense(self.source, "speaks another language") from exc
        if "error" in word:
            raise plan.refusal(self.source, word["error"], code)
        if word.get("end"):
            waited = word.get("compressing")
            self.waited = float(waited) if isinstance(waited, (int, float)) else None
            return True
        return False

    def _fill(self, view: memoryview) -> memoryview:
        """Fill the whole view from the connection, without a further copy."""
        channel = self.channel
        at = 0
        while at < len(view):
            try:
                came = channel.receive(view[at:], SILENCE)
            except TimeoutError as exc:
                raise plan.silent(self.source, SILENCE) from exc
            except OSError as exc:
                raise channel.lost() from exc
            if not came:
                raise channel.lost()
            at += came
        return view


def _unpacked(parts: t.Iterator[memoryview], buffers: Buffers) -> t.Iterator[bytes]:
    """Decompress a zstd stream. Errors of the stream are raised here."""
    failed: list[BaseException] = []
    try:
        process = subprocess.Popen(  # pylint: disable=consider-using-with
            [*BOUND_TO_US, "zstd", "-d", "-q", "-c"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )
    except FileNotFoundError as exc:
        raise GridError("program_missing", "zstd is not installed", remedy=missing_remedy("zstd")) from exc
    # Without buffers they are plain files
    into, out, errors = (t.cast(io.FileIO, stream) for stream in (process.stdin, process.stdout, process.stderr))
    widen(out)

    def feed() -> None:
        try:
            with into as stdin:
                for part in parts:
                    view = part
                    while view:
                        view = view[stdin.write(view) :]
                    buffers.give(part)
        except BaseException as exc:  # pylint: disable=broad-except
            failed.append(exc)

    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    try:
        while True:
            text = out.read(_READ)
            if not text:
                break
            yield text
        feeder.join()
        said = errors.read(2000).decode("utf-8", "replace").strip()
        # The reason why a stream was cut off says more than zstd's complaint about it
        if failed and not isinstance(failed[0], BrokenPipeError):
            raise failed[0]
        if process.wait() or failed:
            raise GridError(
                "transfer_failed",
                f"what came can't be decompressed: {shorten(said)}",
                remedy="Run the same again to go on where it ended",
            )
    finally:
        process.kill()
        process.wait()
        for stream in (out, errors):
            stream.close()
