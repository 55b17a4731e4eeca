# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The destination's end of a transfer: one connection to the source's ``send``, asked for one thing after the other."""

from __future__ import annotations

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
"""Seconds without a byte after which the source counts as gone: its SSH server may answer while its sender hangs."""


class Link:
    """A connection to a source. ``received`` counts the bytes that came, ``end`` has what the last answer ended with."""

    def __init__(self, source: plan.Source) -> None:
        self.source = source
        self.received = 0
        self.end: dict[str, t.Any] = {}
        self.measured: tuple[int, float] = (0, 0.0)
        """Bytes of the last answer's data, and the seconds from the first of them to the last."""
        self._head = memoryview(bytearray(FRAME.size))
        self.buffers = Buffers(_MAX_FRAME)
        """Of what is yielded; who has no more use for a part may give it back."""
        self._connecting = Connecting(source)

    @property
    def channel(self) -> Channel:
        """The connection, once it is there. :raises GridError: ``program_missing``."""
        return self._connecting.channel()

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *dummy: t.Any) -> None:
        self._connecting.close()

    def manifest(self, name: str) -> bytes:
        """The source's manifest of an image. :raises GridError: ``manifest_missing``."""
        return self._small({"get": "manifest", "name": name}, MAX_MANIFEST, "manifest_missing")

    def index(self, digest: str) -> bytes:
        """A layer's index, not looked at yet. :raises GridError: ``layer_missing``."""
        return self._small({"get": "index", "digest": digest}, _MAX_INDEX, "layer_missing")

    def boot(self, digest: str) -> bytes:
        """The record of what a machine reads while it boots, not looked at yet.
        :raises GridError: ``layer_missing`` where there is none."""
        return self._small({"get": "boot", "digest": digest}, MAX_TEXT, "layer_missing")

    def _small(self, request: dict[str, t.Any], limit: int, code: str) -> bytes:
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
        """Parts of a layer's file, one after the other, in pieces of any length. :raises GridError: ``layer_missing``.

        :param spare: leave the processors to others: here machines boot.
        """
        request = {"get": "ranges", "digest": digest, "ranges": ranges, "level": level, "rate": rate, "spare": spare}
        answer = self.ask(request, "layer_missing")
        return _unpacked(answer, self.buffers) if level else answer

    def ask(self, request: t.Mapping[str, t.Any], code: str) -> t.Iterator[memoryview]:
        """The data of one answer.

        :param code: that of the error where the source doesn't have what is asked for.
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
                if self._heed(word, code):
                    return
                continue
            self.measured = (self.measured[0] + length, time.monotonic() - first)
            yield text

    def _heed(self, text: bytes, code: str) -> bool:
        """Whether the answer ends with this word."""
        try:
            word = json.loads(text)
        except ValueError as exc:
            raise plan.nonsense(self.source, "speaks another language") from exc
        if "error" in word:
            raise plan.refusal(self.source, word["error"], code)
        if word.get("end"):
            self.end = word
            return True
        return False

    def _fill(self, view: memoryview) -> memoryview:
        """Read as many bytes as there is room for, each written to memory once."""
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
    """The content of a zstd stream. What goes wrong with the stream is raised here."""
    failed: list[BaseException] = []
    try:
        process = subprocess.Popen(  # pylint: disable=consider-using-with
            [*BOUND_TO_US, "zstd", "-d", "-q", "-c"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )
        widen(process.stdout)
    except FileNotFoundError as exc:
        raise GridError("program_missing", "zstd is not installed", remedy=missing_remedy("zstd")) from exc

    def feed() -> None:
        try:
            with process.stdin as stdin:
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
            text = process.stdout.read(_READ)
            if not text:
                break
            yield text
        feeder.join()
        said = process.stderr.read(2000).decode("utf-8", "replace").strip()
        # A compressor's complaint about a stream that was cut off says less than the reason why it was
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
        for stream in (process.stdout, process.stderr):
            stream.close()
