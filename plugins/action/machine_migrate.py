# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller half of the module ``machine_migrate``: its progress on the terminal, and the ways between the two hosts."""

from __future__ import annotations

import contextlib
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.plugin_utils._progress import ProgressAction
from ansible_collections.virtuoso.grid.plugins.plugin_utils._relay import connection_to, relayed
from ansible_collections.virtuoso.grid.plugins.plugin_utils._tunnel import forwarded


def cut_off(result: t.Mapping[str, t.Any]) -> set[str]:
    """The machines whose files didn't come because the target couldn't reach the source (pure)."""
    rows = result.get("machines") or []
    return {row["uuid"] for row in rows if (row.get("failure") or {}).get("code") == "source_unreachable"}


def joined(first: t.Mapping[str, t.Any], second: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """A result in which the rows of a second try stand for those of the first (pure)."""
    if not isinstance(second.get("machines"), list):
        return dict(first)
    later = {row["uuid"]: row for row in second["machines"]}
    rows = [later.get(row["uuid"], row) for row in first["machines"]]
    merged = {key: value for key, value in first.items() if key not in ("msg", "failure", "failed", "exception")}
    merged.update(machines=rows, changed=any(row.get("changed") for row in rows))
    failed = [row for row in rows if row.get("failed")]
    if failed:
        merged.update(
            failed=True,
            msg=f"{len(failed)} of {len(rows)} failed: " + "; ".join(row["msg"] for row in failed),
            failure={"code": "some_failed", "codes": sorted({row["failure"]["code"] for row in failed})},
        )
    return merged


class ActionModule(ProgressAction):
    """The module with its progress, and with a socket of the target's libvirt where machines leave live."""

    MODULE = "virtuoso.grid.machine_migrate"

    def _watched(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        step, machines = arguments.get("step"), arguments.get("machines") or []
        if step == "send" and not self._task.check_mode and any(entry.get("mode") == "live" for entry in machines):
            return self._send(arguments, task_vars)
        result = super()._watched(arguments, task_vars)
        if step == "receive" and not self._task.check_mode and cut_off(result):
            return self._through_controller(arguments, task_vars, result)
        return result

    def _send(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        try:
            there = connection_to(str((arguments.get("target") or {}).get("name")), task_vars, self._play_context)
            with forwarded(there, self._connection) as socket:
                return super()._watched({**arguments, "socket": socket}, task_vars)
        except GridError as exc:
            return exc.result()

    def _through_controller(
        self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any], first: dict[str, t.Any]
    ) -> dict[str, t.Any]:
        """Once more for those whose source can't be reached: a port of this host's own leads there."""
        again = [entry for entry in arguments["machines"] if entry["uuid"] in cut_off(first)]
        source = arguments.get("source") or {}
        try:
            there = connection_to(str(source.get("name")), task_vars, self._play_context)
            with contextlib.ExitStack() as stack:
                entries = [
                    {**entry, "port": stack.enter_context(relayed(there, self._connection, int(entry["port"])))} for entry in again
                ]
                way = {**source, "host": "127.0.0.1", "key_name": source["host"]}
                return joined(first, super()._watched({**arguments, "machines": entries, "source": way}, task_vars))
        except GridError as exc:
            return {**first, "relay": exc.msg}
