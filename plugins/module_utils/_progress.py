# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Progress of a long operation: JSON lines in a file, which the controller reads and shows while a module runs."""

from __future__ import annotations

import atexit
import contextlib
import copy
import json
import os
import time
import typing as t

QUIET_SECONDS = 2.0
"""Work that takes no longer shows no progress."""

OWN = "/run/virtuoso-progress-"
"""How the path of a progress file begins that the controller chose. The file is removed when the process ends. Only
root writes to /run, so nobody else can have put a link in the file's place."""


class ProgressLine(t.TypedDict, total=False):
    """A line of a progress file.

    ``time``: seconds since 1970. ``name``: the object. ``stage``: what is done with it. The others may be missing:
    ``done`` and ``total`` in bytes, ``command`` the program that a recipe runs.
    """

    time: float
    name: str
    stage: str
    done: int
    total: t.Optional[int]
    command: str


class Progress:
    """Writes one line per stage, see :class:`ProgressLine`. Without a file it does nothing; it never makes work fail.

    Work that ends within ``quiet`` seconds leaves no file.
    """

    def __init__(self, path: str | None, name: str = "", *, interval: float = 0.5, quiet: float = 0.0) -> None:
        self.path = path
        self.name = name
        self.interval = interval
        self._last = 0.0
        self._loud = time.monotonic() + quiet
        if path is not None and path.startswith(OWN):
            atexit.register(_remove, path)

    def about(self, name: str) -> Progress:
        """A reporter that writes to the same file about another object."""
        other = copy.copy(self)
        other.name, other._last = name, 0.0
        return other

    def stage(self, stage: str, **facts: object) -> None:
        """Report that a stage begins, or how far it is (``facts``)."""
        if self.path is None or time.monotonic() < self._loud:
            return
        line: ProgressLine = {"time": round(time.time(), 3), "name": self.name, "stage": stage}
        try:
            with open(self.path, "a", encoding="utf-8") as stream:
                stream.write(json.dumps({**line, **facts}) + "\n")
        except OSError:
            self.path = None

    def bytes(self, stage: str, done: int, total: int | None) -> None:
        """Report bytes done, at most every ``interval`` seconds; the last report (``done == total``) always."""
        now = time.monotonic()
        if now - self._last >= self.interval or done == total:
            self._last = now
            self.stage(stage, done=done, total=total)


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)
