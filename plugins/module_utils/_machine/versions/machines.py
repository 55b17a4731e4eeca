# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Captures machines as versions of images, and rolls them back, many over one connection."""

from __future__ import annotations

import contextlib
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.connection import (
    Hypervisor,
    connect,
    translated,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.depot import Depot as Store
from ansible_collections.virtuoso.grid.plugins.module_utils._image.versions.capture import (
    check_fields,
    ensure_captured,
    parse_capture,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._image.versions.flatten import require_version
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.files import disk
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.life.batch_base import Entry, Params
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.snapshots import disk_source
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.versions import rollback
from ansible_collections.virtuoso.grid.plugins.module_utils._names import check
from ansible_collections.virtuoso.grid.plugins.module_utils._progress import Progress
from ansible_collections.virtuoso.grid.plugins.module_utils._run import Result

_PATIENCE = 120
"""Seconds to wait for another run that works on the same machine."""


class Versions:
    """The machines of one host and its image store; see :func:`opened`."""

    def __init__(self, hypervisor: Hypervisor, params: Params, locks: disk.Locks | None) -> None:
        self.hypervisor = hypervisor
        self.params = params
        self.locks = locks
        self.store = Store(params["path"])
        self.depot = disk.Depot(params["path"])

    def captured(self, entry: Entry, progress: Progress) -> Result:
        """Capture a machine's disk as a version; returns the result of one entry."""
        wanted = parse_capture(entry)
        with self._held(wanted.machine) as (found, stack):
            source = disk_source.source_of(
                self.hypervisor, self.depot, found, stack.close, self.params["timeout"], progress
            )
            return ensure_captured(self.store, wanted, source, progress, self.locks is None)

    def rolled_back(self, entry: Entry, dummy: Progress) -> Result:
        """Roll a machine back, or forward, to a version; returns the result of one entry."""
        fields = ("machine", "name", "version")
        check_fields(entry, fields, fields)
        name, version = check("name", entry["name"]), check("version", str(entry["version"]))
        require_version(self.store, name, version)
        check_mode = self.locks is None
        with self._held(str(entry["machine"])) as (found, stack), translated("roll the machine back"):
            if not check_mode:
                # Nobody may remove the version before the machine's disk is on it
                stack.enter_context(self.store.locked())
            manifest = require_version(self.store, name, version)
            row = rollback.roll_back(
                self.hypervisor, self.store, self.depot, found, manifest, self.params["discard"], check_mode
            )
            return dict(row)

    def _held(self, machine: str) -> t.ContextManager[tuple[disk_source.Found, contextlib.ExitStack]]:
        return disk_source.held(self.hypervisor, self.depot, self.locks, machine, _PATIENCE)


@contextlib.contextmanager
def opened(params: Params, check_mode: bool) -> t.Iterator[Versions]:
    """Connect to libvirt. :param params: ``uri``, ``path``, ``timeout``, ``discard``.

    :raises GridError: ``depot_missing``, ``library_missing``, ``libvirt_unreachable``.
    """
    depot = disk.Depot(params["path"])
    depot.require()
    with connect(params["uri"], events=True) as hypervisor, contextlib.ExitStack() as stack:
        locks = None
        if not check_mode:
            with translated("lock the machines"):
                locks = disk.Locks(depot)
            stack.callback(locks.close)
        yield Versions(hypervisor, params, locks)
