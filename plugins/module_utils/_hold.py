# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A module that was started before its turn: it waits for the word that tells what it is to do.

To start a module takes longer than most of what it does. So the controller starts the one that comes next while another works, and gives it the word by a file
in a directory that is there as long as the controller's process is (``plugin_utils/_stations.py``). Without the word nothing is done.
"""

from __future__ import annotations

import json
import os
import time
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._wait import Pending, wait_for

LONGEST = 86400.0
_PATIENCE = 10.0
_INTERVAL = 0.02


def word(path: str, *, longest: float = LONGEST, patience: float = _PATIENCE, clock: t.Callable[[], float] = time.monotonic) -> dict[str, t.Any]:
    """The word, as soon as it is given.

    :param path: its file. :param patience: seconds within which the directory must have been made.
    :raises GridError: ``not_called`` where the controller has gone, or didn't come.
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
        there = os.path.isdir(os.path.dirname(path))
        if (seen and not there) or (not seen and not there and clock() - begin > patience):
            raise GridError("not_called", "the controller has gone before it said what to do; nothing was done", remedy="Run again")
        seen = seen or there
        raise Pending("no word yet")

    return wait_for(probe, longest, what="the controller's word", interval=_INTERVAL, clock=clock)
