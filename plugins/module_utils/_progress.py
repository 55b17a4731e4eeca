# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a long work is doing now, as JSON lines in a file that another process can show."""

from __future__ import annotations

import atexit
import contextlib
import copy
import json
import os
import time
import typing as t

QUIET_SECONDS = 2.0
"""Work that takes no longer than this shows nothing."""

OWN = "/run/virtuoso-progress-"
"""How a file begins that the controller named and nobody else knows; it goes with the process. Only root writes there,
so nobody else can have put a link in its place."""


class Progress:
    """Writes one line per stage; does nothing without a file, and never fails the work that it reports on.

    A line is ``{"time": seconds since 1970, "name": ..., "stage": ..., "done": bytes, "total": bytes}``; ``done`` and
    ``total`` are there where they are known. Work that ends within ``quiet`` seconds leaves no file, so that nobody has
    to remove it.
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
        """The same file, lines about another object."""
        other = copy.copy(self)
        other.name, other._last = name, 0.0
        return other

    def stage(self, stage: str, **facts: t.Any) -> None:
        """A stage begins, or has got so far."""
        if self.path is None or time.monotonic() < self._loud:
            return
        line = json.dumps({"time": round(time.time(), 3), "name": self.name, "stage": stage, **facts})
        try:
            with open(self.path, "a", encoding="utf-8") as stream:
                stream.write(line + "\n")
        except OSError:
            self.path = None

    def bytes(self, stage: str, done: int, total: int | None) -> None:
        """Like :meth:`stage`, at most every ``interval`` seconds; the last one (``done == total``) always."""
        now = time.monotonic()
        if now - self._last >= self.interval or done == total:
            self._last = now
            self.stage(stage, done=done, total=total)


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)
