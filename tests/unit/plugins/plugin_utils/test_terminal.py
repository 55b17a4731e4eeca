# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lines that are redrawn: on a pseudo-terminal, by several at once."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import termios

import pytest
from ansible_collections.virtuoso.grid.plugins.plugin_utils import _terminal as terminal


@pytest.fixture(name="screen")
def _screen():
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
    yield ours, theirs
    os.close(ours)
    os.close(theirs)


def read(screen):
    text = b""
    while select.select([screen], [], [], 0.1)[0]:
        text += os.read(screen, 65536)
    return text.decode().replace("\r\n", "\n")


def test_all_hosts_have_a_line_and_the_cursor_stays_above_them(screen, tmp_path):
    ours, theirs = screen
    boards = [terminal.Board(os.dup(theirs), str(tmp_path)) for dummy in range(2)]
    boards[0].show("b", "b: 10 %")
    assert read(ours) == "\033[J\nb: 10 %\033[1A\r"
    boards[1].show("a", "a: " + "x" * 99)
    assert read(ours) == "\033[J\na: " + "x" * 36 + "\nb: 10 %\033[2A\r"
    boards[0].end("b")
    assert read(ours) == "\033[J\na: " + "x" * 36 + "\033[1A\r"
    boards[1].end("a")
    assert read(ours) == "\033[J" and not list(tmp_path.glob("*.line"))


def test_a_terminal_that_does_not_tell_its_size(screen, tmp_path):
    ours, theirs = screen
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 0, 0, 0, 0))
    terminal.Board(os.dup(theirs), str(tmp_path)).show("a", "a: 10 %")
    assert "a: 10 %" in read(ours)


def test_the_line_of_a_process_that_was_killed_goes(screen, tmp_path):
    ours, theirs = screen
    one = terminal.Board(os.dup(theirs), str(tmp_path))
    one.show("a", "a")
    (line,) = tmp_path.glob("*.line")
    os.utime(line, (0, 0))
    one.show("b", "b")
    assert read(ours).endswith("\033[J\nb\033[1A\r")


def test_there_are_no_more_lines_than_rows():
    assert terminal.drawing([str(number) for number in range(50)], 80, 10).count("\n") == 8


@pytest.mark.parametrize(
    ("environment", "good"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "dumb"}, False),
        ({}, False),
        ({"TERM": "xterm", "AWX_ISOLATED_DATA_DIR": "/runner"}, False),
    ],
)
def test_lines_are_for_people(environment, good):
    assert terminal.is_for_people(environment) is good


def test_output_that_is_no_terminal_has_none(monkeypatch, tmp_path):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(terminal.os, "isatty", lambda descriptor: False)
    assert terminal.board(str(tmp_path)) is None


def test_a_terminal_that_is_gone_does_no_harm(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    terminal.Board(writer, str(tmp_path)).show("a", "a")
