# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Downloads an image into the staging directory, resumes after an interruption, and verifies its checksum."""

from __future__ import annotations

import http.client
import os
import urllib.error

from ansible.module_utils.urls import open_url
from ansible_collections.virtuoso.grid.plugins.module_utils._disk_space import check_space
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.depot import file_digest
from ansible_collections.virtuoso.grid.plugins.module_utils._progress import Progress

SILENCE = 60
"""Seconds without a byte after which the server counts as gone."""

_BLOCK = 2**18


def fetch(url: str, checksum: str, target: str, progress: Progress) -> None:
    """Download ``url`` to ``target`` and verify its SHA-256, ``checksum`` (``sha256:...``).

    What an earlier try has left in ``target`` isn't fetched again where the server supports ranges. A file with another
    checksum is removed.

    :raises GridError: ``source_unreachable``, ``source_missing``, ``checksum_mismatch``, ``disk_full``.
    """
    there = os.path.getsize(target) if os.path.exists(target) else 0
    if not (there and file_digest(target) == checksum):
        _stream(url, there, target, progress)
    progress.stage("verify")
    found = file_digest(target)
    if found != checksum:
        os.unlink(target)
        raise GridError(
            "checksum_mismatch",
            f"{url} has the checksum {found}, not {checksum}; it was not used",
            remedy="See that the address is right and that the checksum is the publisher's; "
            "if both are, don't trust the server",
            url=url,
            expected=checksum,
            found=found,
        )


def _stream(url: str, there: int, target: str, progress: Progress) -> None:
    headers = {"Range": f"bytes={there}-"} if there else {}
    try:
        # urllib follows redirections to http and https only.
        response = open_url(
            url, headers=headers, timeout=SILENCE, follow_redirects="safe", decompress=False, http_agent="virtuoso.grid"
        )
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
    except urllib.error.HTTPError as exc:
        if exc.code == 416:  # the server's file is shorter than what is there
            os.unlink(target)
            return _stream(url, 0, target, progress)
        code = "source_missing" if exc.code in (401, 403, 404, 410) else "source_unreachable"
        raise GridError(
            code,
            f"the server answered {exc.code} to {url}",
            remedy="Correct the address, or try again later",
            status=exc.code,
        ) from exc
    except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ValueError) as exc:
        raise unreachable(url, exc) from exc
    if total is not None and done < total:
        raise unreachable(url, f"the connection ended after {done} of {total} bytes")
    return None


def unreachable(url: str, why: object) -> GridError:
    """The error for a server that doesn't answer, or has stopped to."""
    return GridError(
        "source_unreachable",
        f"{url} could not be fetched: {str(why)[:300]}",
        remedy="See that this host reaches the server; run the same again to go on where it ended",
        url=url,
    )
