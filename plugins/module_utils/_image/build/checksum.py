# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checksums of downloads, in the forms in which publishers tell them (pure)."""

from __future__ import annotations

import os
import re
import typing as t
import urllib.parse

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._image.build.address import shown
from ansible_collections.virtuoso.grid.plugins.module_utils._names import shorten

DIGITS = {"sha256": 64, "sha512": 128}
MOST_TEXT = 2**20
"""Bytes that are read of a list of checksums."""

_FORM = "Give checksum as sha256:DIGITS or sha512:DIGITS, or as sha256:URL of the publisher's list (SHA256SUMS)"
# sha256sum(1): the digest, a space, a space or a star, the name; with --tag as BSD has it. Lists may be signed, too.
_GNU = re.compile(r"\\?([0-9A-Fa-f]{64,128})[ \t]+\*?(.+)")
_BSD = re.compile(r"SHA(?:256|512) ?\((.+)\) ?= ?([0-9A-Fa-f]{64,128})", re.IGNORECASE)


class Checksum(t.NamedTuple):
    """What a file's checksum has to be. Either ``digits``, in lower case, or the address of a list that has it."""

    algorithm: str
    digits: str = ""
    address: str = ""

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.digits or self.address}"


def parse(value: object) -> Checksum:
    """Read a checksum. Without the name of an algorithm, the number of digits tells it.

    :raises GridError: ``invalid_checksum``.
    """
    if not isinstance(value, str) or not value.strip():
        raise GridError("invalid_checksum", f"{shorten(value)} is no checksum", remedy=_FORM)
    algorithm, colon, rest = value.strip().partition(":")
    algorithm, rest = (algorithm.lower().replace("-", ""), rest.strip()) if colon else ("", value.strip())
    if algorithm and algorithm not in DIGITS:
        raise GridError(
            "invalid_checksum",
            f"checksums of the kind {shorten(algorithm)} are not used",
            remedy=f"{_FORM}; others such as md5 and sha1 can be forged",
        )
    if re.match(r"https?://[!-~]{1,2000}\Z", rest):
        return Checksum(algorithm, address=rest)
    if not re.fullmatch(r"[0-9A-Fa-f]+", rest, re.ASCII):
        raise GridError("invalid_checksum", f"{shorten(rest)} is no checksum", remedy=_FORM)
    algorithm = algorithm or next((name for name, length in DIGITS.items() if length == len(rest)), "")
    if len(rest) != DIGITS.get(algorithm):
        raise GridError(
            "invalid_checksum",
            f"the checksum has {len(rest)} digits",
            remedy=f"{_FORM}; {' and '.join(f'{name} has {length} digits' for name, length in DIGITS.items())}",
        )
    return Checksum(algorithm, rest.lower())


def from_list(text: str, checksum: Checksum, url: str) -> Checksum:
    """The checksum of the file at ``url`` from a publisher's list.

    :param text: the list. :raises GridError: ``checksum_missing``, ``checksum_ambiguous``.
    """
    wanted = os.path.basename(urllib.parse.unquote(urllib.parse.urlsplit(url).path))
    length = DIGITS[checksum.algorithm]
    found, others = set(), []
    for line in text.splitlines():
        bsd, gnu = _BSD.fullmatch(line.strip()), _GNU.fullmatch(line.strip())
        name, digits = (bsd[1], bsd[2]) if bsd else (gnu[2], gnu[1]) if gnu else ("", line.strip())
        if len(digits) != length or not re.fullmatch(r"[0-9A-Fa-f]+", digits, re.ASCII):
            continue
        # A list of one file may have its digits alone.
        if not name or os.path.basename(name.strip().replace("\\", "/")) == wanted:
            found.add(digits.lower())
        else:
            others.append(name.strip())
    if len(found) == 1:
        return Checksum(checksum.algorithm, found.pop())
    if found:
        raise GridError(
            "checksum_ambiguous",
            f"the list {shown(checksum.address)} has several checksums for {shorten(wanted)}",
            remedy="Give the right one: checksum: " + checksum.algorithm + ":DIGITS",
        )
    raise GridError(
        "checksum_missing",
        f"the list {shown(checksum.address)} has no {checksum.algorithm} of {shorten(wanted)};"
        f" it has {shorten(', '.join(others[:5])) if others else 'none at all'}",
        remedy="See that list and image are of the same folder, or give the digits themselves",
    )
