# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fetches what a boot reads for a pager, in a background process, while the play continues.

The process ends when the blocks are here, as that of an asynchronous task does.
"""

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
"""Seconds after which it gives up: by then the play's own transfer has got further."""


def fetch_ahead(depot: Depot, source: Source, digest: str) -> None:
    """Start fetching what a boot of the image reads. A failure only goes to the host's log: the play's own transfer
    fetches everything anyway.

    :param digest: of the image's topmost layer.
    """
    _apart(lambda: _fetch(depot, source, digest))


def _fetch(depot: Depot, source: Source, digest: str) -> None:
    signal.alarm(_LONGEST)
    (outcome,) = get(
        depot, source, [Item("ahead", digest[len("sha256:") :][:12], digest, None, None)], Progress(None), ahead=True
    )
    if isinstance(outcome, GridError):
        raise outcome


def _apart(work: t.Callable[[], None]) -> None:
    """Run ``work`` in a process of its own that inherits no lock and no open file, and that nobody waits for."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        os.setsid()
        if os.fork() == 0:
            null = os.open(os.devnull, os.O_RDWR)
            for descriptor in range(3):
                os.dup2(null, descriptor)
            os.closerange(3, os.sysconf("SC_OPEN_MAX"))
            work()
    except BaseException as exc:  # pylint: disable=broad-except
        syslog.openlog("virtuoso", syslog.LOG_PID)
        syslog.syslog(syslog.LOG_WARNING, f"what a boot reads did not come ahead: {exc}")
    finally:
        os._exit(0)  # pylint: disable=protected-access
