# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ctrl-C or SIGKILL at several moments of each step of a deployment, then the same command again."""

from __future__ import annotations

import signal
import typing as t

import pytest
from interrupting import MOMENTS, STEPS, forget, interrupted_and_resumed, prepare
from walking import Grid


@pytest.fixture
def grid(make_grid) -> t.Iterator[Grid]:
    """Everything is new for each case: store, machines and image."""
    grid = make_grid("it-kill")
    forget()
    prepare()
    yield grid
    grid.clean()
    forget()


@pytest.mark.parametrize("after", MOMENTS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill"])
@pytest.mark.parametrize("step", STEPS)
def test_interrupted_and_resumed(grid: Grid, step: str, number: int, after: float):
    interrupted_and_resumed(grid, step, number, after)
