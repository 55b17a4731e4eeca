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

QUIET_SECONDS = 2.0
"""Work that takes no longer shows no progress."""

OWN = "/run/virtuoso-progress-"
"""How the path of a progress file begins that the controller chose. The file is removed when the process ends. Only
root writes to /run, so nobody else can have put a link in the file's place."""


class Progress:
    """Writes one line per stage. Without a file it does nothing; it never makes the work fail.

    A line is ``{"time": seconds since 1970, "name": the object, "stage": ..., "done": bytes, "total": bytes}``, where
    ``done`` and ``total`` may be missing. Work that ends within ``quiet`` seconds leaves no file.
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
        line = json.dumps({"time": round(time.time(), 3), "name": self.name, "stage": stage, **facts})
        try:
            with open(self.path, "a", encoding="utf-8") as stream:
                stream.write(line + "\n")
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
