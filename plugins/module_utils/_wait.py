# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Wait for a condition with a deadline: ``wait_for`` tells done, wrong state and time-out apart."""

from __future__ import annotations

import threading
import time
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError

T = t.TypeVar("T")


class Pending(Exception):
    """Raised by a probe: not yet. Its text says what was seen instead; the time-out's error repeats it."""


def wait_for(
    probe: t.Callable[[], T],
    timeout: float,
    *,
    what: str,
    wake: threading.Event | None = None,
    interval: float = 0.5,
    remedy: str | None = None,
    clock: t.Callable[[], float] = time.monotonic,
) -> T:
    """Call ``probe`` until it returns, and return its value.

    The probe raises :class:`Pending` while the state may still come, and any other error when it can't come any more.

    :param timeout: seconds; the probe runs at least once, and once more at the end.
    :param what: what is waited for, for the error's text.
    :param wake: an event handler sets it to have the probe called at once.
    :param interval: the longest pause between two calls, in seconds.
    :raises GridError: ``timed_out``, with what the probe saw last as ``last``.
    """
    wake = wake or threading.Event()
    end = clock() + timeout
    while True:
        late = clock() >= end
        wake.clear()
        try:
            return probe()
        except Pending as exc:
            last = str(exc)
        if late:
            raise GridError(
                "timed_out", f"{what} did not come within {timeout:g} s; last seen: {last}", remedy=remedy, last=last
            )
        wake.wait(max(0.0, min(interval, end - clock())))
