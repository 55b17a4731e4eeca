# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Downloads an image into the staging directory, resumes after an interruption, and verifies its checksum."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import typing as t
import urllib.error

from ansible.module_utils.urls import open_url
from ansible_collections.virtuoso.grid.plugins.module_utils._disk_space import check_space
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._image.build.address import censored, shown
from ansible_collections.virtuoso.grid.plugins.module_utils._image.build.checksum import (
    MOST_TEXT,
    Checksum,
    from_list,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._progress import Progress

SILENCE = 60
"""Seconds without a byte after which the server counts as gone."""

_BLOCK = 2**18


def resolved(url: str, checksum: Checksum) -> Checksum:
    """The checksum with its digits: of the publisher's list where it is the address of one.

    :raises GridError: ``source_unreachable``, ``source_missing``, ``checksum_missing``, ``checksum_ambiguous``.
    """
    if checksum.digits:
        return checksum
    with _errors(checksum.address):
        response = _open(checksum.address, {})
        text = response.read(MOST_TEXT).decode("utf-8", "replace")
    return from_list(text, checksum, url)


def _digest(path: str, algorithm: str) -> str:
    digest = hashlib.new(algorithm)
    with open(path, "rb", buffering=0) as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def fetch(url: str, checksum: Checksum, target: str, progress: Progress) -> None:
    """Download ``url`` to ``target`` and verify its checksum, which is that of the file as it is downloaded.

    What an earlier try has left in ``target`` isn't fetched again where the server supports ranges. A file with another
    checksum is removed.

    :raises GridError: ``source_unreachable``, ``source_missing``, ``checksum_mismatch``, ``disk_full``.
    """
    there = os.path.getsize(target) if os.path.exists(target) else 0
    if not (there and _digest(target, checksum.algorithm) == checksum.digits):
        _stream(url, there, target, progress)
    progress.stage("verify")
    found = Checksum(checksum.algorithm, _digest(target, checksum.algorithm))
    if found != checksum:
        os.unlink(target)
        raise GridError(
            "checksum_mismatch",
            f"{shown(url)} has the checksum {found}, not {checksum}; it was not used",
            remedy="See that the address is right and that the checksum is the publisher's; "
            "if both are, don't trust the server",
            url=shown(url),
            expected=str(checksum),
            found=str(found),
        )


def _open(url: str, headers: t.Mapping[str, str]) -> t.Any:
    # urllib follows redirections to http and https only.
    return open_url(
        url, headers=headers, timeout=SILENCE, follow_redirects="safe", decompress=False, http_agent="virtuoso.grid"
    )


@contextlib.contextmanager
def _errors(url: str) -> t.Iterator[None]:
    """Turn what keeps a server from answering into errors of ours."""
    try:
        yield
    except urllib.error.HTTPError as exc:
        code = "source_missing" if exc.code in (401, 403, 404, 410) else "source_unreachable"
        raise GridError(
            code,
            f"the server answered {exc.code} to {shown(url)}",
            remedy="Correct the address, or try again later",
            status=exc.code,
        ) from exc
    except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ValueError) as exc:
        raise unreachable(url, exc) from exc


def _stream(url: str, there: int, target: str, progress: Progress) -> None:
    headers = {"Range": f"bytes={there}-"} if there else {}
    total, done = None, 0
    with _errors(url):
        try:
            response = _open(url, headers)
        except urllib.error.HTTPError as exc:
            if exc.code != 416 or not there:
                raise
            # The server's file is shorter than what is there.
            os.unlink(target)
            _stream(url, 0, target, progress)
            return
        resumed = there > 0 and response.getcode() == 206
        done = there if resumed else 0
        length = response.headers.get("Content-Length")
        total = done + int(length) if length and length.isdigit() else None
        if total is not None:
            check_space(os.path.dirname(target), total - there, "the download")
        with open(target, "ab" if resumed else "wb") as stream:
            while True:
                block = response.read(_BLOCK)
                if not block:
                    break
                stream.write(block)
                done += len(block)
                progress.bytes("download", done, total)
    if total is not None and done < total:
        raise unreachable(url, f"the connection ended after {done} of {total} bytes")


def unreachable(url: str, why: object) -> GridError:
    """The error for a server that doesn't answer, or has stopped to."""
    return GridError(
        "source_unreachable",
        f"{shown(url)} could not be fetched: {censored(str(why), url)[:300]}",
        remedy="See that this host reaches the server; run the same again to go on where it ended",
        url=shown(url),
    )
