# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules on two hosts within one task, some of them started before their turn.

A station is one of the hosts, with connections of its own. What is started there early waits for its word
(``module_utils/_hold.py``). The word is given through a shell on the host that reads what we write to it; when our
process ends, however it does, the shell takes the directory of the words away, and what still waits ends without having
done anything.
"""

from __future__ import annotations

import contextlib
import contextvars
import copy
import json
import os
import selectors
import shlex
import subprocess
import threading
import time
import typing as t

from ansible import constants as C
from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.loader import become_loader
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._hold import ANSWERS
from ansible_collections.virtuoso.grid.plugins.plugin_utils import _relay

Result = t.Dict[str, t.Any]

_READY = b"virtuoso-ready"
_DEADLINE = 15.0
_PATIENCE = 3.0
_POLL = 0.2
_LAST = 0.5
_INTERPRETER = ("ansible_python_interpreter", "ansible_interpreter_python", "ansible_interpreter_python_fallback")
_BECOME = ("become_user", "become_exe", "become_flags", "become_pass")


def script(directory: str) -> str:
    """The shell's: each line is a name and a word, which is whole in the file of that name; what is answered comes out
    as it is (pure).

    To open the pipe for writing waits for its reader, so that nobody finds it without one; and its reader ends when
    nobody has it open for that any more.
    """
    return (
        f"umask 077; mkdir {directory} || exit 1; mkfifo {directory}/{ANSWERS}; cat {directory}/{ANSWERS} & "
        f"trap 'rm -rf {directory}; kill $! 2>/dev/null; wait' EXIT; trap 'exit 1' HUP INT TERM; exec 3>{directory}/{ANSWERS}; echo {_READY.decode()}; "
        f'while read -r name word; do printf \'%s\' "$word" > {directory}/.word && mv {directory}/.word {directory}/"$name"; done'
    )


class Caller:
    """Gives the word to what waits on a host. Not to be used from several threads."""

    def __init__(self, connection: t.Any) -> None:
        self._directory = f"/tmp/virtuoso-{os.urandom(16).hex()}"
        way = copy.copy(connection)
        # By this it finds the shared connection; a new one has the name of the task's host.
        way.host = str(way.get_option("host"))
        listens = f"/bin/sh -c {shlex.quote(script(self._directory))}"
        argv = way._build_command(way.get_option("ssh_executable"), "ssh", "-T", way.host, listens)  # pylint: disable=protected-access
        self._said = b""
        self._listens = False
        self._process = subprocess.Popen(  # pylint: disable=consider-using-with
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )

    def path(self, name: str) -> str:
        """Where a word of this name is waited for."""
        return f"{self._directory}/{name}"

    def _read(self, seconds: float) -> bool:
        """Wait for more, so long; whether there may be more after this."""
        output = t.cast(t.BinaryIO, self._process.stdout)
        with selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            if selector.select(seconds):
                part = os.read(output.fileno(), 65536)
                self._said += part
                return bool(part)
        return True

    def ready(self) -> bool:
        """Whether the host listens."""
        end = time.monotonic() + _DEADLINE
        while not self._listens and time.monotonic() < end:
            more = self._read(0.1)
            dummy, found, after = self._said.partition(_READY + b"\n")
            if found:
                self._listens, self._said = True, after
            elif not more:
                break
        return self._listens

    def answer(self, number: int, over: t.Callable[[], bool]) -> Result | None:
        """What was answered to the word of this number; ``None`` where nothing more comes.
        :param over: whether who would answer has ended."""
        quiet = False
        while True:
            *lines, self._said = self._said.split(b"\n")
            for line in lines:
                with contextlib.suppress(ValueError, TypeError, KeyError):
                    told = json.loads(line)
                    if told["number"] == number:
                        return t.cast(Result, told["result"])
            if quiet and not lines:
                return None
            # What it said last may come after it has ended.
            quiet = over()
            if not self._read(_LAST if quiet else _POLL):
                quiet = True

    def say(self, name: str, values: t.Mapping[str, t.Any]) -> None:
        """Give the word. :raises OSError: where nobody listens any more."""
        stdin = t.cast(t.BinaryIO, self._process.stdin)
        stdin.write(f"{name} {json.dumps(values)}\n".encode("ascii"))
        stdin.flush()

    def close(self) -> None:
        """No more words: what still waits ends."""
        with contextlib.suppress(OSError):
            t.cast(t.BinaryIO, self._process.stdin).close()
        try:
            self._process.wait(2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        t.cast(t.BinaryIO, self._process.stdout).close()


class Background:
    """Work in a thread of its own; what goes wrong there is a result as well."""

    def __init__(self, work: t.Callable[[], Result]) -> None:
        self._result: Result = {}
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._do, work), daemon=True)
        self._thread.start()

    def _do(self, work: t.Callable[[], Result]) -> None:
        try:
            self._result = work()
        except AnsibleConnectionFailure as exc:
            self._result = {"unreachable": True, "msg": str(exc)}
        except GridError as exc:
            self._result = exc.result()
        except (AnsibleError, OSError) as exc:
            self._result = {"failed": True, "msg": f"the step failed: {exc}"}
        except BaseException as exc:  # pylint: disable=broad-except
            self._result = {"failed": True, "msg": f"the step failed: {type(exc).__name__}: {exc}"}

    def over(self) -> bool:
        """Whether it has ended."""
        return not self._thread.is_alive()

    def wait(self, seconds: float) -> None:
        """Return when it is over, or after so many seconds."""
        self._thread.join(seconds)

    def result(self) -> Result:
        """What became of it, when it is over."""
        self._thread.join()
        return self._result


class Station:
    """A host on which modules run, each on a connection of its own.

    :param action: an action plugin with ``_watched(arguments, task_vars)`` that runs its module.
    """

    def __init__(self, action: t.Any, name: str, connection: t.Any, task_vars: dict[str, t.Any]) -> None:
        self.name = name
        self._action = action
        self._connection = connection
        self._task_vars = task_vars
        self._caller: Caller | None = None
        with contextlib.suppress(AttributeError, AnsibleError, OSError):
            # As the action itself asks: whether modules of Python can be given on the standard input.
            if connection.is_pipelining_enabled(False):
                self._caller = Caller(connection)

    @property
    def caller(self) -> Caller | None:
        """Who gives the word there; ``None`` where nobody can."""
        return self._caller

    def listen(self) -> None:
        """See whether modules can be started early there; otherwise they start when their turn has come."""
        if self._caller is not None and not self._caller.ready():
            self.close()
            self._caller = None

    def close(self) -> None:
        """What still waits there ends."""
        if self._caller is not None:
            self._caller.close()

    def run(self, arguments: t.Mapping[str, t.Any]) -> Result:
        """Run the module to its end."""
        action = copy.copy(self._action)
        connection = copy.copy(self._connection)
        # A directory that is made for one run is that run's own.
        connection._shell = copy.copy(connection._shell)  # pylint: disable=protected-access
        connection._shell.tmpdir = None  # pylint: disable=protected-access
        action._connection = connection  # pylint: disable=protected-access
        action._task = self._action._task.copy()  # pylint: disable=protected-access
        action._task.delegate_to = self.name  # pylint: disable=protected-access
        try:
            return t.cast(Result, action._watched(dict(arguments), self._task_vars))  # pylint: disable=protected-access
        finally:
            action._remove_tmp_path(connection._shell.tmpdir)  # pylint: disable=protected-access

    def begin(self, name: str, arguments: t.Mapping[str, t.Any]) -> Begun:
        """Start the module; it does nothing until it is called."""
        return Begun(self, name, arguments, self._caller)


class Begun:
    """A module that is on its way, or, where it can't be started early, ready to be."""

    def __init__(self, station: Station, name: str, arguments: t.Mapping[str, t.Any], caller: Caller | None) -> None:
        self._station = station
        self._name = name
        self._arguments = dict(arguments)
        self._caller = caller
        self._work: Background | None = None
        if caller is not None:
            self._arguments["hold"] = caller.path(name)
            self._work = Background(lambda: station.run({**self._arguments, "machines": []}))

    def call(self, **values: t.Any) -> Result:
        """Have it do these; its result."""
        if self._caller is None or self._work is None:
            return Background(lambda: self._station.run({**self._arguments, **values})).result()
        with contextlib.suppress(OSError):
            self._caller.say(self._name, values)
            result = self._work.result()
            if (result.get("failure") or {}).get("code") != "not_called":
                return result
        # Its connection broke before it had the word: as Ansible gives a module again, so do we.
        self._caller = None
        self._arguments.pop("hold")
        return self.call(**values)

    def dismiss(self) -> None:
        """It isn't needed."""
        if self._caller is not None and self._work is not None:
            with contextlib.suppress(OSError):
                self._caller.say(self._name, {"machines": []})
            self._work.wait(_PATIENCE)


def known(task_vars: t.Mapping[str, t.Any], name: str) -> t.Any:
    """A host's variables. :raises GridError: ``relay_impossible``."""
    hostvars = task_vars.get("hostvars", {})
    if name not in hostvars:
        raise _relay.impossible(f"{name} is no host of the inventory")
    return hostvars[name]


def variables(task_vars: t.Mapping[str, t.Any], name: str) -> dict[str, t.Any]:
    """A task's variables, as they are where it is delegated to the host."""
    theirs = known(task_vars, name)
    own: dict[str, t.Any] = {key: theirs[key] for key in _INTERPRETER if key in theirs}
    own.update(inventory_hostname=name, ansible_facts=dict(theirs.get("ansible_facts") or {}))
    return {**task_vars, "ansible_delegated_vars": {name: own}}


def become(action: t.Any, connection: t.Any, theirs: t.Mapping[str, t.Any]) -> None:
    """Give a connection the privileges that the task has."""
    task, context = action._task, action._play_context  # pylint: disable=protected-access
    wanted = theirs.get("ansible_become")
    if not boolean(task.become if wanted is None else wanted):
        return
    plugin = become_loader.get(str(theirs.get("ansible_become_method") or task.become_method))
    if plugin is None:
        raise _relay.impossible("there is no such become_method")
    names = C.config.get_plugin_vars("become", plugin._load_name)  # pylint: disable=protected-access
    keys = {key: getattr(task, key, None) for key in _BECOME}
    if context.become_pass:
        keys["become_pass"] = context.become_pass
    plugin.set_options(task_keys=keys, var_options={key: theirs[key] for key in names if key in theirs})
    connection.set_become_plugin(plugin)
