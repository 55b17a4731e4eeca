# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Functions whose room is loaded when they are called.

Every task that uses a filter of ours loads all files of filters, for each host in a process of its own, and Ansible
compiles them from their sources each time. To load all rooms costs 0.15 to 0.25 s there (measured on two cores); a play
has dozens of such tasks, and most need one room.
"""

from __future__ import annotations

import importlib
import typing as t

_ROOMS = "ansible_collections.virtuoso.grid.plugins.module_utils"


class Later:
    """A function of a room in ``module_utils``, called as itself."""

    def __init__(self, room: str, function: str) -> None:
        self._room = room
        self._function = function

    def load(self) -> t.Callable[..., object]:
        """The function itself."""
        return t.cast(
            "t.Callable[..., object]", getattr(importlib.import_module(f"{_ROOMS}.{self._room}"), self._function)
        )

    def __call__(self, *arguments: object, **named: object) -> object:
        return self.load()(*arguments, **named)


def of_room(room: str, *own: str, **others: str) -> dict[str, Later]:
    """Functions of one room, by the names of their filters: their own, or others."""
    return {name: Later(room, function) for name, function in {**{name: name for name in own}, **others}.items()}
