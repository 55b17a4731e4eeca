# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What becomes a line on the terminal."""

from __future__ import annotations

import pytest
from ansible_collections.virtuoso.grid.plugins.plugin_utils._progress_action import Watcher, describe, read_event

MIB = 2**20


@pytest.mark.parametrize("text", ["", "half a li", "[]", '{"stage": 5}', '{"name": "x"}', "9" * 10000])
def test_what_is_no_event_is_passed_over(text):
    assert read_event(text) is None


def test_a_stage_is_told_at_once_and_then_every_ten_seconds():
    watcher = Watcher("home1")
    assert watcher.line({"name": "tiny", "stage": "unpack"}, 2.0) == "home1: tiny: unpack [2 s]"
    assert watcher.line({"name": "tiny", "stage": "unpack"}, 3.0) is None
    assert watcher.line({"name": "tiny", "stage": "convert"}, 4.0) == "home1: tiny: convert [4 s]"
    assert watcher.line({"name": "tiny", "stage": "convert"}, 14.1) == "home1: tiny: convert [14 s]"


def test_bytes_have_a_rate_and_the_time_left():
    watcher = Watcher("provider1")
    watcher.line({"name": "tiny@1", "stage": "transfer", "done": 0, "total": 100 * MIB}, 2.0)
    line = watcher.line({"name": "tiny@1", "stage": "transfer", "done": 50 * MIB, "total": 100 * MIB}, 12.0)
    assert line == "provider1: tiny@1: transfer 50 MiB of 100 MiB (50 %), 5 MiB/s, 10 s left [12 s]"


def test_a_host_cannot_steer_the_terminal_or_flood_it():
    line = describe("h", {"name": "\x1b[2J" + "x" * 9999, "stage": "s"}, 1.0)
    assert "\x1b" not in line and len(line) <= 200


@pytest.mark.parametrize(
    "event",
    [{"stage": "s", "done": "many"}, {"stage": "s", "done": 5, "total": 0}, {"stage": "s", "done": 5, "total": None}],
)
def test_odd_numbers_do_no_harm(event):
    assert describe("h", event, 1.0).startswith("h: working: s")
