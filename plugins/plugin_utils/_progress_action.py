# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Show on the terminal what a long module is doing on its host: lines that are redrawn; elsewhere one every ten
seconds.

The module appends JSON lines to a file. To run it keeps this process waiting, so a thread reads the last line
meanwhile, over a second channel of the same connection. Progress is best effort: nothing that goes wrong here fails the
work.
"""

from __future__ import annotations

import copy
import json
import os
import threading
import time
import typing as t

from ansible import constants as C
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.virtuoso.grid.plugins.module_utils._progress import OWN, QUIET_SECONDS
from ansible_collections.virtuoso.grid.plugins.module_utils._units import format_size
from ansible_collections.virtuoso.grid.plugins.plugin_utils._output import output_is_text
from ansible_collections.virtuoso.grid.plugins.plugin_utils._terminal import board

Arguments = t.Dict[str, t.Any]
"""A module's arguments, or a task's variables or result: each has fields of its own, whose types its module checks."""

LINE_SECONDS = 10.0
"""The longest time without a line in a file or under AWX; a new stage has one at once."""
_POLL_SECONDS = 1.0
_LONGEST_LINE = 4096


def read_event(text: str) -> dict[str, object] | None:
    """The last line of a progress file, if it is whole and sane; what comes from a host is not trusted (pure)."""
    try:
        event = json.loads(text[-_LONGEST_LINE:])
    except ValueError:
        return None
    if not isinstance(event, dict) or not isinstance(event.get("stage"), str):
        return None
    return event


def describe(host: str, event: t.Mapping[str, object], elapsed: float, rate: float | None = None) -> str:
    """One line for people (pure): host, object, stage, bytes, rate and time left as far as they are known.

    :param elapsed: seconds since the task began.
    :param rate: bytes a second.
    """
    text = f"{host}: {event.get('name') or 'working'}: {event['stage']}"
    done, total = event.get("done"), event.get("total")
    if isinstance(done, (int, float)):
        text += f" {format_size(done)}"
        if isinstance(total, (int, float)) and total > 0:
            text += f" of {format_size(total)} ({100 * done / total:.0f} %)"
        if rate:
            text += f", {format_size(rate)}/s"
            if isinstance(total, (int, float)) and total > done:
                text += f", {(total - done) / rate:.0f} s left"
    text += f" [{elapsed:.0f} s]"
    return "".join(char if char.isprintable() else "?" for char in text[:200])


class Watcher:
    """Decides which events become lines (no I/O): a new stage at once, the same one every ``seconds``."""

    def __init__(self, host: str, seconds: float = LINE_SECONDS) -> None:
        self.host = host
        self.seconds = seconds
        self._shown: tuple[object, object] | None = None
        self._when = 0.0
        self._before: tuple[float, float] | None = None

    def line(self, event: t.Mapping[str, object], elapsed: float) -> str | None:
        """The line to show for what the host said last, or None."""
        stage = (event.get("name"), event["stage"])
        if stage == self._shown and elapsed - self._when < self.seconds:
            return None
        rate = None
        done = event.get("done")
        if isinstance(done, (int, float)):
            if stage == self._shown and self._before and elapsed > self._before[0]:
                rate = max(0.0, (done - self._before[1]) / (elapsed - self._before[0])) or None
            self._before = (elapsed, done)
        else:
            self._before = None
        self._shown, self._when = stage, elapsed
        return describe(self.host, event, elapsed, rate)


class ProgressAction(ActionBase):
    """Runs the module of the same name, which has an option progress_file, and shows its progress."""

    MODULE = ""

    def run(self, tmp: str | None = None, task_vars: Arguments | None = None) -> Arguments:
        """The module's result; lines on the terminal while it runs for more than QUIET_SECONDS."""
        result = super().run(tmp, task_vars)
        result.update(self._watched(dict(self._task.args), task_vars or {}))
        return result

    def _watched(self, arguments: Arguments, task_vars: Arguments) -> Arguments:
        """Run the module with these arguments while its progress is shown."""
        quiet = self._task.check_mode or self._task.async_val or arguments.get("progress_file")
        if quiet:
            return self._execute_module(
                module_name=self.MODULE, module_args=arguments, task_vars=task_vars, wrap_async=self._task.async_val
            )
        path = OWN + os.urandom(8).hex()
        begin = time.monotonic()
        ended = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(path, ended, task_vars), daemon=True)
        watcher.start()
        try:
            arguments["progress_file"] = path
            result = self._execute_module(module_name=self.MODULE, module_args=arguments, task_vars=task_vars)
        finally:
            ended.set()
            watcher.join(_POLL_SECONDS)
        # The module takes it away, unless it is killed.
        if result.get("failed") and time.monotonic() - begin >= QUIET_SECONDS:
            self._low_level_execute_command(f"rm -f -- {path}", sudoable=True)
        return result

    def _watch(self, path: str, ended: threading.Event, task_vars: Arguments) -> None:
        begin = time.monotonic()
        display = Display()
        host = self._task.delegate_to or task_vars.get("inventory_hostname", "host")
        lines = board(C.DEFAULT_LOCAL_TMP) if output_is_text() else None  # type: ignore[attr-defined]  # Ansible makes its constants at run time
        watcher = Watcher(str(host), LINE_SECONDS if lines is None else 0.0)
        # A copy, because the one in use belongs to the module that is running; the file can be read without privileges.
        channel = copy.copy(self._connection)
        channel.become = None
        pause = QUIET_SECONDS
        try:
            while not ended.wait(pause):
                pause = _POLL_SECONDS
                code, stdout, dummy = channel.exec_command(f"tail -n 1 -- {path}", in_data=None, sudoable=False)
                event = read_event(stdout.decode("utf-8", "replace")) if code == 0 else None
                line = watcher.line(event, time.monotonic() - begin) if event else None
                if not line or ended.is_set():
                    continue
                if lines is not None:
                    lines.show(str(host), line)
                elif output_is_text():
                    display.display(line)
        except Exception as exc:  # pylint: disable=broad-except
            display.vvv(f"{host}: progress can't be shown: {exc}")
        finally:
            if lines is not None:
                lines.end(str(host))
