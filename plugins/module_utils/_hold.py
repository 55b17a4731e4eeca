# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A module that was started before its turn: it waits for the word that tells what it is to do.

To start a module takes longer than most of what it does. So the controller starts the one that comes next while another
works, and gives it the word by a file in a directory that is there as long as the controller's process is
(``plugin_utils/_stations.py``). Without the word nothing is done. A module that is to do one thing after the other has
a word for each, and says what became of it through a named pipe in that directory (fifo(7)).
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._wait import Pending, wait_for

LONGEST = 86400.0
_PATIENCE = 10.0
_INTERVAL = 0.01

ANSWERS = ".answers"
"""The named pipe, beside the words."""


def word(
    path: str,
    *,
    longest: float = LONGEST,
    patience: float = _PATIENCE,
    clock: t.Callable[[], float] = time.monotonic,
    begun: str = "",
) -> dict[str, t.Any]:
    """The word, as soon as it is given.

    :param path: its file.
    :param patience: seconds within which the directory must have been made.
    :param begun: a file by which it is seen that another of us has had its word.
    :raises GridError: ``not_called`` where the controller has gone, or didn't come; ``link_lost`` where another was
        begun.
    """
    seen = False
    begin = clock()

    def probe() -> dict[str, t.Any]:
        nonlocal seen
        try:
            with open(path, encoding="utf-8") as file:
                return t.cast("dict[str, t.Any]", json.load(file))
        except FileNotFoundError:
            pass
        if begun and os.path.exists(begun):
            raise GridError(
                "link_lost",
                "the connection broke after the module had begun, and what became of that isn't known here",
                remedy="Run again",
            )
        there = os.path.isdir(os.path.dirname(path))
        if (seen and not there) or (not seen and not there and clock() - begin > patience):
            raise GridError(
                "not_called", "the controller has gone before it said what to do; nothing was done", remedy="Run again"
            )
        seen = seen or there
        raise Pending("no word yet")

    return wait_for(probe, longest, what="the controller's word", interval=_INTERVAL, clock=clock)


class Words:
    """One word after the other.
    :param path: what their files' names begin with; each has its number after that, from 0 on."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._number = 0
        self._pipe: int | None = None

    def next(self) -> dict[str, t.Any]:
        """The next one, which nobody gets again. :raises GridError: as :func:`word`."""
        path = f"{self._path}.{self._number}"
        # Where there was a word before, there is the directory, or nobody any more.
        begun = f"{self._path}.begun"
        found = word(path, patience=0.0) if self._number else word(path, begun=begun)
        if not self._number:
            # Ansible starts a module once more where its connection broke: that one is to end, not to wait for a word
            # that was given already.
            with contextlib.suppress(OSError), open(begun, "w", encoding="ascii"):
                pass
        # The module may be started once more where its connection broke: what it has begun to do is not to be done by
        # two.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        self._number += 1
        return found

    def answer(self, result: t.Mapping[str, t.Any]) -> bool:
        """Say what became of the last one; whether somebody listens."""
        text = json.dumps({"number": self._number - 1, "result": result}, default=str) + "\n"
        rest = memoryview(text.encode("ascii"))
        try:
            if self._pipe is None:
                # Without a reader this fails; in its other mode it would wait for one that doesn't come.
                self._pipe = os.open(os.path.join(os.path.dirname(self._path), ANSWERS), os.O_WRONLY | os.O_NONBLOCK)
                os.set_blocking(self._pipe, True)
            while rest:
                rest = rest[os.write(self._pipe, rest) :]
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Nothing more is said."""
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None
