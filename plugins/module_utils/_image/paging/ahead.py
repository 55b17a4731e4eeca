# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a boot reads comes to a pager while the play goes on: a process that ends when it is there, as an asynchronous
task's does."""

from __future__ import annotations

import os
import signal
import syslog
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.depot import Depot
from ansible_collections.virtuoso.grid.plugins.module_utils._image.transfer.fetch import get
from ansible_collections.virtuoso.grid.plugins.module_utils._image.transfer.plan import Item, Source
from ansible_collections.virtuoso.grid.plugins.module_utils._progress import Progress

_LONGEST = 600
"""Seconds after which it gives up: by then the play's own transfer does more."""


def fetch_ahead(depot: Depot, source: Source, digest: str) -> None:
    """Begin to get what a boot of the image reads. That it fails is told in the host's log only: the play's own
    transfer brings all."""
    _apart(lambda: _fetch(depot, source, digest))


def _fetch(depot: Depot, source: Source, digest: str) -> None:
    signal.alarm(_LONGEST)
    (outcome,) = get(
        depot, source, [Item("ahead", digest[len("sha256:") :][:12], digest, None, None)], Progress(None), ahead=True
    )
    if isinstance(outcome, GridError):
        raise outcome


def _apart(work: t.Callable[[], None]) -> None:
    """Run it in a process that this one needn't wait for, and that holds nothing of it: no lock, and not the connection
    that it answers on."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        os.setsid()
        if os.fork() == 0:
            nothing = os.open(os.devnull, os.O_RDWR)
            for descriptor in range(3):
                os.dup2(nothing, descriptor)
            os.closerange(3, os.sysconf("SC_OPEN_MAX"))
            work()
    except BaseException as exc:  # pylint: disable=broad-except
        syslog.openlog("virtuoso", syslog.LOG_PID)
        syslog.syslog(syslog.LOG_WARNING, f"what a boot reads did not come ahead: {exc}")
    finally:
        os._exit(0)  # pylint: disable=protected-access
