# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller half of the module ``order_info``: reads a store of the controller's own at once.

Most plays begin with a list of all machines. The module takes many times longer to start than to read it from a file.
"""

from __future__ import annotations

import typing as t

from ansible.plugins.action import ActionBase
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._information.inventory import choosing, views
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store import listing


def plain(
    arguments: t.Mapping[str, object], transport: str, become: bool, environment: t.Iterable[object] | None
) -> str | None:
    """The store, where all its machines are asked for, or some of all, and this process sees what the module would see;
    else ``None`` (pure)."""
    given = {key: value for key, value in arguments.items() if value is not None and key not in ("select", "limit")}
    store = given.pop("store", None)
    if given or not isinstance(store, str) or transport != "local" or become or any(environment or ()):
        return None
    return store


class ActionModule(ActionBase):
    """Lists all machines of a file by itself; whatever else is asked, and whatever is wrong with the file, is the
    module's."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, object] | None = None) -> dict[str, object]:
        """The module's result."""
        result: dict[str, object] = super().run(tmp, task_vars)
        listed = None
        if not self._task.async_val:
            store = plain(
                self._task.args, self._connection.transport, self._connection.become is not None, self._task.environment
            )
            path = listing.file_of(store, self._loader.get_basedir()) if store else None
            listed = listing.read(path) if path else None
        if listed is None:
            result.update(
                self._execute_module(
                    module_name="virtuoso.grid.order_info", task_vars=task_vars, wrap_async=self._task.async_val
                )
            )
        else:
            result.update(self._chosen([views.machine_view(row) for row in listed[0]]))
        return result

    def _chosen(self, machines: list[choosing.Machine]) -> dict[str, object]:
        arguments = self._task.args
        select, limit = arguments.get("select"), arguments.get("limit")
        try:
            return {"changed": False, "machines": choosing.of_store(arguments["store"], machines, select, limit)}
        except GridError as exc:
            return exc.on(host="controller").result()
