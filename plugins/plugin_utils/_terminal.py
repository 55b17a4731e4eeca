# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lines at the end of a terminal that are redrawn: one for each host that is at work, below what Ansible has printed.

Ansible runs each host's task in a process of its own, whose output goes nowhere. They share a directory with a file for
each host, and whoever has news draws all of them, under a lock, on the terminal of the process that started them. The
cursor stays above the lines, so that what Ansible prints next takes their place.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
import typing as t

_OLD = 10.0
"""Seconds after which a line is not shown any more: its process was killed."""
_CLEAR = "\033[J"
# Under these the output is a pseudo-terminal, but what reads it is a program.
_PROGRAMS = ("AWX_ISOLATED_DATA_DIR", "AWX_HOST", "RUNNER_OMIT_EVENTS")


def is_for_people(environment: t.Mapping[str, str]) -> bool:
    """Whether a person looks at the terminal, and it can move its cursor (pure)."""
    return environment.get("TERM", "dumb") != "dumb" and not any(name in environment for name in _PROGRAMS)


def drawing(lines: t.Sequence[str], columns: int, rows: int) -> str:
    """What draws the lines below the cursor and leaves it where it was (pure); as many as there is room for."""
    shown = [line[: max(1, columns - 1)] for line in lines[: max(1, rows - 2)]]
    return _CLEAR + "".join(f"\n{line}" for line in shown) + (f"\033[{len(shown)}A\r" if shown else "")


class Board:
    """The lines. Nothing is raised: they are a courtesy."""

    def __init__(self, terminal: int, directory: str) -> None:
        self._terminal = terminal
        self._directory = directory

    def show(self, host: str, line: str) -> None:
        """This is what the host does."""
        self._draw(host, line)

    def end(self, host: str) -> None:
        """The host has no line any more."""
        self._draw(host, None)
        os.close(self._terminal)

    def _draw(self, host: str, line: str | None) -> None:
        with contextlib.suppress(OSError):
            os.makedirs(self._directory, exist_ok=True)
            with open(os.path.join(self._directory, "lock"), "a", encoding="utf-8") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                self._note(hashlib.sha256(host.encode()).hexdigest()[:16] + ".line", line)
                size = os.get_terminal_size(self._terminal)
                os.write(self._terminal, drawing(self._lines(), size.columns or 80, size.lines or 24).encode())

    def _note(self, name: str, line: str | None) -> None:
        path = os.path.join(self._directory, name)
        if line is None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            return
        with open(path, "w", encoding="utf-8") as file:
            file.write(line)

    def _lines(self) -> list[str]:
        found = []
        for name in os.listdir(self._directory):
            path = os.path.join(self._directory, name)
            if name.endswith(".line") and time.time() - os.stat(path).st_mtime < _OLD:
                with open(path, encoding="utf-8") as file:
                    found.append(file.read())
        return sorted(found)


def board(directory: str) -> Board | None:
    """The terminal's, or ``None`` where the output goes elsewhere."""
    if not is_for_people(os.environ):
        return None
    # Of this process, or of the one that started it
    for process in (os.getpid(), os.getppid()):
        with contextlib.suppress(OSError):
            terminal = os.open(f"/proc/{process}/fd/1", os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC)
            if os.isatty(terminal):
                return Board(terminal, os.path.join(directory, "virtuoso-progress"))
            os.close(terminal)
    return None
