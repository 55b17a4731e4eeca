# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What tests in the lab share."""

from __future__ import annotations

import typing as t

import pytest


@pytest.fixture(scope="module")
def make_grid() -> t.Iterator[t.Callable[..., t.Any]]:
    """Makes a :class:`walking.Grid`; what it left in the lab is removed after the module's tests, however they
    ended."""
    from walking import Grid

    made: list[Grid] = []

    def make(name: str, **options: t.Any) -> Grid:
        grid = Grid(name, **options)
        made.append(grid)
        return grid

    yield make
    for grid in made:
        grid.clean()
