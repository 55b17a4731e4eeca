# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller half of the module ``machine_ready``: logs in to machines as any play would, all at once."""

from __future__ import annotations

import concurrent.futures
import time
import typing as t

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible.plugins.connection import ConnectionBase
from ansible.utils.display import Display
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._play.ready import Attempt, Awaited, Judge
from ansible_collections.virtuoso.grid.plugins.module_utils._play.records import Row
from ansible_collections.virtuoso.grid.plugins.module_utils._wait import Pending, wait_for
from ansible_collections.virtuoso.grid.plugins.plugin_utils._output import output_is_text
from ansible_collections.virtuoso.grid.plugins.plugin_utils._ssh import Variables, connection_to

_PAUSE = 1.0
_LINES = 10.0
"""Seconds between two lines about a machine that is waited for."""
_AT_ONCE = 16


class ActionModule(ActionBase):
    """Logs in until each machine is ready, or the time is over. Nothing is run on any host of the play."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """One row for each machine."""
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        dummy, arguments = self.validate_argument_spec(
            argument_spec={
                "machines": {"type": "list", "elements": "dict", "required": True},
                "timeout": {"type": "float", "default": 300},
            }
        )
        machines: list[Awaited] = arguments["machines"]
        if self._task.check_mode or not machines:
            result.update(changed=False, machines=[])
            return result
        # Connections are made here: variables are worked out in one thread.
        ways = [self._way(machine["name"], task_vars or {}) for machine in machines]
        with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
            waits = [pool.submit(_wait, *pair, arguments["timeout"]) for pair in zip(machines, ways)]
            rows = [wait.result() for wait in waits]
        result.update(changed=False, machines=rows)
        return result

    def _way(self, name: str, variables: Variables) -> ConnectionBase | GridError:
        try:
            return connection_to(name, variables, self._play_context)
        except GridError as exc:
            return exc


class _Lines:
    """Says now and then that a machine is waited for."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._begin = self._last = time.monotonic()

    def say(self, why: str) -> None:
        """:param why: what keeps it from being ready."""
        now = time.monotonic()
        if now - self._last >= _LINES and output_is_text():
            self._last = now
            Display().display(f"{self._name}: not ready after {now - self._begin:.0f} s: {why}")


def _wait(machine: Awaited, way: ConnectionBase | GridError, seconds: float) -> Row:
    """The machine's row, once it is ready or the time is over."""
    login = "nobody" if isinstance(way, GridError) else str(way.get_option("remote_user") or "ssh's own user")
    judge, lines = Judge(machine, login), _Lines(machine["name"])

    def probe() -> Row:
        row = judge.see(_attempt(way, judge.command()), time.monotonic())
        if row is None:
            lines.say(judge.last)
            raise Pending(judge.last)
        return row

    try:
        return wait_for(probe, seconds, what=f"machine {machine['name']}", interval=_PAUSE)
    except GridError:
        return judge.late(seconds)


def _attempt(way: ConnectionBase | GridError, command: str) -> Attempt:
    """Run a command on a machine."""
    if isinstance(way, GridError):
        return Attempt(None, way.msg)
    try:
        code, stdout, stderr = way.exec_command(command, in_data=None, sudoable=False)
    except AnsibleError as exc:
        return Attempt(None, str(exc))
    said = (stdout + b"\n" + stderr).decode("utf-8", "replace")
    # ssh's own code, where its connection is the matter
    return Attempt(None if code == 255 else code, said)
