# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One of the interruptions that tests/faults tries in every step, and two more where each test is run."""

from __future__ import annotations

import signal
import typing as t

import pytest
from interrupting import forget, interrupted_and_resumed, prepare
from walking import Grid


@pytest.fixture
def grid(make_grid) -> t.Iterator[Grid]:
    """Everything is new for each case: store, machines and image."""
    grid = make_grid("it-stop")
    forget()
    prepare()
    yield grid
    grid.clean()
    forget()


@pytest.mark.parametrize(
    ("step", "number", "after"),
    [
        pytest.param("images", signal.SIGKILL, 0.5, marks=pytest.mark.each),
        pytest.param("transfer", signal.SIGINT, 0.5, marks=pytest.mark.each),
        ("machine", signal.SIGKILL, 0.7),
    ],
    ids=["images-kill", "transfer-ctrl-c", "machine-kill"],
)
def test_interrupted_and_resumed(grid: Grid, step: str, number: int, after: float):
    interrupted_and_resumed(grid, step, number, after)
