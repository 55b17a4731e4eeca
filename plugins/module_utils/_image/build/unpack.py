# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Unpacks a compressed image as a stream. What comes out is bounded by the space that there is, whatever it claims."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import os
import subprocess
import typing as t
import zlib

from ansible_collections.virtuoso.grid.plugins.module_utils._command import BOUND_TO_US
from ansible_collections.virtuoso.grid.plugins.module_utils._disk_space import check_space
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._progress import Progress

MOST = 2 * 2**40
"""Bytes of the largest disk that is unpacked."""

_BLOCK = 2**20
_RESERVE = 256 * 2**20
"""Bytes that stay free for others."""
_EVERY = 64 * 2**20
_ZEROS = bytes(_BLOCK)


def unpack(packed: str, kind: str, target: str, progress: Progress) -> None:
    """Unpack a file. Blocks of zeros become holes.

    :param kind: one of :data:`kinds.PACKED`.
    :raises GridError: ``image_damaged``, ``image_too_large``, ``disk_full``, ``program_missing``.
    """
    try:
        with _opened(packed, kind) as stream, open(target, "wb") as out:
            _copy(stream, out, target, progress)
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as exc:
        if isinstance(exc, OSError) and exc.errno is not None:
            raise
        raise _damaged(kind, str(exc)) from exc


def _damaged(kind: str, why: str) -> GridError:
    return GridError(
        "image_damaged",
        f"the file can't be unpacked as {kind}: {why[:200]}",
        remedy="Get the file again; its publisher's checksum is that of the file as it is downloaded",
    )


def _copy(stream: t.IO[bytes], out: t.IO[bytes], target: str, progress: Progress) -> None:
    def room() -> None:
        check_space(os.path.dirname(target), _RESERVE, "the unpacked image")

    room()
    done = since = 0
    while block := stream.read(_BLOCK):
        done += len(block)
        if done > MOST:
            raise GridError(
                "image_too_large",
                f"more than {MOST} bytes come out of the file",
                remedy="Use an image with a smaller disk",
            )
        if block == _ZEROS[: len(block)]:
            out.seek(len(block), os.SEEK_CUR)
        else:
            out.write(block)
            since += len(block)
        if since >= _EVERY:
            since = 0
            room()
        progress.bytes("unpack", done, None)
    # A hole at the end
    out.truncate(done)


@contextlib.contextmanager
def _opened(packed: str, kind: str) -> t.Iterator[t.IO[bytes]]:
    if kind == "zstd":
        with _zstd(packed) as stream:
            yield stream
        return
    opened: dict[str, t.Callable[[], t.IO[bytes]]] = {
        "xz": lambda: t.cast("t.IO[bytes]", lzma.open(packed)),
        "gzip": lambda: t.cast("t.IO[bytes]", gzip.open(packed)),
        "bzip2": lambda: t.cast("t.IO[bytes]", bz2.open(packed)),
    }
    with opened[kind]() as stream:
        yield stream


@contextlib.contextmanager
def _zstd(packed: str) -> t.Iterator[t.IO[bytes]]:
    """The library is in Python from 3.14 on only; images are made with the program anyway."""
    try:
        process = subprocess.Popen(
            [*BOUND_TO_US, "zstd", "-d", "-c", "-q", "--memory=512MB", "--", packed],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    except FileNotFoundError as exc:
        raise GridError(
            "program_missing", "zstd is not installed", remedy="Run virtuoso.grid.setup on this host, which installs it"
        ) from exc
    stdout, stderr = t.cast("t.IO[bytes]", process.stdout), t.cast("t.IO[bytes]", process.stderr)
    try:
        yield stdout
        said = stderr.read(2000).decode("utf-8", "replace").strip()
        if process.wait():
            raise _damaged("zstd", said or f"zstd ended with {process.returncode}")
    finally:
        process.kill()
        process.wait()
        stdout.close()
        stderr.close()
