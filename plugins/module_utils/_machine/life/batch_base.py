# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The base of runs on many machines: one connection, the machines' locks, and a result per machine, in the order of the
entries."""

from __future__ import annotations

import concurrent.futures
import contextlib
import threading
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.connection import (
    Hypervisor,
    connect,
    translated,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.files import disk
from ansible_collections.virtuoso.grid.plugins.module_utils._run import Result

Params = t.Mapping[str, t.Any]
"""A module's options. ``Any``, because the argument specification gives each a type of its own."""

Entry = t.Mapping[str, object]
"""One of a module's ``machines``, not checked yet."""


class BatchBase:
    """One run of a module on its ``machines``."""

    def __init__(self, params: Params, check_mode: bool, most: int) -> None:
        """:param most: the number of machines to work on at once."""
        self.params = params
        self.check_mode = check_mode
        self.most = most
        self.depot = disk.Depot(params["path"])
        self.diffs: dict[int, dict[str, str]] = {}
        """By the machine's number in the list."""
        self.locks: disk.Locks | None = None
        """``None`` in check mode."""
        self._taken: dict[str, int] = {}
        self._once = threading.Lock()

    def begin(self, hypervisor: Hypervisor) -> None:
        """Called once, before any machine."""

    def one(self, hypervisor: Hypervisor, number: int, entry: Entry) -> Result:
        """The result of one machine. Raises only what concerns all machines."""
        raise NotImplementedError

    def run(self) -> Result:
        """Handle all entries; see the module's RETURN."""
        entries = self.params["machines"]
        if not entries:
            return {"changed": False, "machines": []}
        self.depot.require()
        with connect(self.params["uri"], events=True) as hypervisor, contextlib.ExitStack() as stack:
            if not self.check_mode:
                with translated("lock the machines"):
                    self.locks = disk.Locks(self.depot)
                stack.callback(self.locks.close)
            self.begin(hypervisor)
            with concurrent.futures.ThreadPoolExecutor(min(self.most, len(entries))) as pool:
                results = list(pool.map(lambda pair: self.one(hypervisor, *pair), enumerate(entries)))
        answer: Result = {"changed": any(result["changed"] for result in results), "machines": results}
        if self.diffs:
            answer["diff"] = [self.diffs[number] for number in sorted(self.diffs)]
        return answer

    def claim(self, number: int, uuid: str | None, name: str | None = None) -> None:
        """Take the machine for an entry. The locks keep other runs out, but not other threads of this one.

        :raises GridError: ``duplicate_machine`` where another entry means the same machine.
        """
        with self._once:
            for key in (uuid, f"name {name}" if name else None):
                if key is not None and self._taken.setdefault(key, number) != number:
                    raise GridError("duplicate_machine", "the machine is listed twice", remedy="List each machine once")
