# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's SSH connections to managed hosts, and ways between two of them that lead through the controller.

A way is two ssh processes: one makes a port of the first host a socket here, in a directory of our own; the other makes
that a port on the second host. Both run a command that ends when its input does. So they end with the ``with`` block,
and also when the controller's process is killed.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import subprocess
import tempfile
import time
import typing as t

from ansible import constants as C
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.playbook.play_context import PlayContext
from ansible.playbook.task import Task
from ansible.plugins.connection import ConnectionBase
from ansible.plugins.loader import become_loader, connection_loader
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError

Variables = t.Mapping[str, t.Any]
"""A task's or a host's variables: whatever a user has set."""

DEADLINE = 30.0
_PATIENCE = 2.0
_READY = b"virtuoso-ready"
_IS_READY = re.compile(_READY)
_ALLOCATED = re.compile(rb"Allocated port (\d+) for remote forward")
_OWN = ("ControlMaster=no", "ControlPath=none", "ExitOnForwardFailure=yes", "BatchMode=yes")
"""A forwarding that the master of a shared connection holds would outlive us."""
_BECOME = ("become_user", "become_exe", "become_flags", "become_pass")
_INTERPRETER = ("ansible_python_interpreter", "ansible_interpreter_python", "ansible_interpreter_python_fallback")


def impossible(why: str) -> GridError:
    """The error where the controller can't join two hosts."""
    return GridError(
        "relay_impossible",
        f"the controller can't join the two hosts: {why}",
        remedy="Use Ansible's ssh connection with keys for both, and let their SSH servers forward TCP"
        " (AllowTcpForwarding)",
    )


def host_variables(name: str, task_vars: Variables) -> Variables:
    """The variables of a host of the inventory. :raises GridError: ``relay_impossible``."""
    hostvars = task_vars.get("hostvars", {})
    if name not in hostvars:
        raise impossible(f"{name} is no host of the inventory")
    return t.cast(Variables, hostvars[name])


def delegated(task_vars: Variables, name: str) -> dict[str, t.Any]:
    """A task's variables as they are where it is delegated to another host: that one's Python is used there."""
    theirs = host_variables(name, task_vars)
    own = {key: theirs[key] for key in _INTERPRETER if key in theirs}
    own.update(inventory_hostname=name, ansible_facts=dict(theirs.get("ansible_facts") or {}))
    return {**task_vars, "ansible_delegated_vars": {name: own}}


def connection_to(name: str, task_vars: Variables, play_context: PlayContext) -> ConnectionBase:
    """Ansible's SSH connection to another host of the inventory, not opened yet, without privileges.

    :raises GridError: ``relay_impossible``.
    """
    known = host_variables(name, task_vars)
    if known.get("ansible_connection", "ssh") not in ("ssh", "smart", "ansible.builtin.ssh"):
        raise impossible(f"{name} isn't reached by SSH")
    connection = connection_loader.get("ssh", play_context)
    names = {
        *C.config.get_plugin_vars("connection", "ansible.builtin.ssh"),
        *C.config.get_plugin_vars("connection", "ssh"),
        "inventory_hostname",
    }
    options = {key: known[key] for key in names if key in known}
    options.setdefault("ansible_host", name)
    connection.set_options(var_options=options)
    return connection


def privileged_connection_to(name: str, task_vars: Variables, task: Task, play_context: PlayContext) -> ConnectionBase:
    """The same with the privileges that the task has. :raises GridError: ``relay_impossible``."""
    connection = connection_to(name, task_vars, play_context)
    known = host_variables(name, task_vars)
    wanted = known.get("ansible_become")
    if not boolean(task.become if wanted is None else wanted):
        return connection
    plugin = become_loader.get(str(known.get("ansible_become_method") or task.become_method))
    if plugin is None:
        raise impossible("there is no such become_method")
    # The name under which Ansible keeps a plugin's configuration has no public way to it (ansible-core 2.18, 2.19).
    # Where it changes, variables such as ansible_become_user are not heeded on targets.
    names = C.config.get_plugin_vars("become", plugin._load_name)
    keys = {key: getattr(task, key, None) for key in _BECOME}
    if play_context.become_pass:
        keys["become_pass"] = play_context.become_pass
    plugin.set_options(task_keys=keys, var_options={key: known[key] for key in names if key in known})
    connection.set_become_plugin(plugin)
    return connection


def command(connection: ConnectionBase, *words: str) -> list[bytes]:
    """The command by which Ansible would start ssh on a connection, with words of ours, and not sharing its master.

    :raises GridError: ``relay_impossible``.
    """
    # Ansible has no public way to its ssh command with all options of a host (ansible-core 2.18, 2.19). Where this
    # method goes, ways through the controller are refused, and live moves with them.
    build = getattr(connection, "_build_command", None)
    if build is None:
        raise impossible("a host isn't reached by Ansible's ssh connection")
    program = connection.get_option("ssh_executable")
    argv = t.cast("list[bytes]", build(program, "ssh", "-T", *words, str(connection.get_option("host"))))
    at = argv.index(program.encode()) + 1
    # ssh takes the first of two values.
    own = [word.encode() for option in _OWN for word in ("-o", option)]
    return [*argv[:at], *own, *argv[at:]]


@contextlib.contextmanager
def relayed(source: ConnectionBase, destination: ConnectionBase, port: int) -> t.Iterator[int]:
    """While the block runs, a port on the destination's loopback leads to a port of the source.

    :param port: the source's, as seen on the source itself.
    :returns: the destination's port.
    :raises GridError: ``relay_impossible``.
    """
    with Way() as way:
        near = way.start(source, "", "-L", f"{way.socket}:127.0.0.1:{port}")
        far = way.start(destination, "", "-R", f"127.0.0.1:0:{way.socket}")
        wait_ready(near, "the source")
        yield int(_wait(far, _ALLOCATED, "the destination")[1])


class Way:
    """The ssh processes of a way, and the socket here in the middle of it."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="virtuoso-")
        self._processes: list[subprocess.Popen[bytes]] = []
        self.socket = os.path.join(self._directory.name, "s")

    def __enter__(self) -> Way:
        return self

    def __exit__(self, *dummy: object) -> None:
        # The command at the other end comes to its end, and tidies up there.
        for process in self._processes:
            t.cast(t.BinaryIO, process.stdin).close()
        for process in self._processes:
            end(process)
        self._directory.cleanup()

    def start(self, connection: ConnectionBase, afterwards: str, *words: str) -> subprocess.Popen[bytes]:
        """Start ssh with these words. :param afterwards: what is run on the host at the end."""
        script = f"echo {_READY.decode()}; cat >/dev/null; {afterwards}"
        process = subprocess.Popen(
            [*command(connection, *words), script.encode()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._processes.append(process)
        return process


def end(process: subprocess.Popen[bytes]) -> None:
    """Wait for the end of ssh, and make it end where that takes too long."""
    for stop in (process.terminate, process.kill):
        try:
            process.wait(_PATIENCE)
            break
        except subprocess.TimeoutExpired:
            stop()
    process.wait()
    t.cast(t.BinaryIO, process.stdout).close()


def wait_ready(process: subprocess.Popen[bytes], whom: str) -> None:
    """Wait until ssh is ready. :raises GridError: ``relay_impossible`` where it ends, or takes too long."""
    _wait(process, _IS_READY, whom)


def _wait(process: subprocess.Popen[bytes], pattern: re.Pattern[bytes], whom: str) -> re.Match[bytes]:
    """What ssh says when it is ready. :raises GridError: ``relay_impossible`` where it ends, or takes too long."""
    said, end = b"", time.monotonic() + DEADLINE
    output = t.cast(t.BinaryIO, process.stdout)
    with selectors.DefaultSelector() as selector:
        selector.register(output, selectors.EVENT_READ)
        while time.monotonic() < end:
            found = pattern.search(said)
            if found:
                return found
            if selector.select(0.1):
                part = os.read(output.fileno(), 4096)
                if not part:
                    break
                said += part
    last = said.decode("utf-8", "replace").strip().splitlines()[-1:] or ["it said nothing"]
    raise impossible(f"ssh to {whom} isn't ready: {last[0][:300]}")
