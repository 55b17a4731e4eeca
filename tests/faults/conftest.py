# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A lab that was just made has bare hosts: they are set up before the first test."""

from __future__ import annotations

import pytest
from walking import Grid


@pytest.fixture(scope="session", autouse=True)
def _set_up() -> None:
    """Afterwards the image server also has the image tiny."""
    grid = Grid("it-setup")
    grid.play("setup").succeeded()
    try:
        grid.play("deploy", machines=grid.machines(1)).succeeded()
    finally:
        grid.clean()
