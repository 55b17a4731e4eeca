# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A way from one managed host to another's SSH server through the controller, which reaches both.

Two ssh processes of the controller: one makes the source's SSH server a socket here, in a directory of our own; the
other makes that socket a port on the destination's loopback. What goes through is the destination's own SSH connection
to the source, encrypted from end to end. Both processes end with the ``with`` block.
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
from ansible.plugins.loader import connection_loader
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError

DEADLINE = 30.0
_ALLOCATED = re.compile(rb"Allocated port (\d+) for remote forward")
# First of all options, so that they count: a forwarding that the master of a shared connection holds would outlive us.
_OWN = (
    b"-o",
    b"ControlMaster=no",
    b"-o",
    b"ControlPath=none",
    b"-o",
    b"ExitOnForwardFailure=yes",
    b"-o",
    b"BatchMode=yes",
)


def connection_to(name: str, task_vars: t.Mapping[str, t.Any], play_context: t.Any) -> t.Any:
    """Ansible's SSH connection to another host of the inventory, not opened yet.

    :raises GridError: ``relay_impossible``.
    """
    hostvars = task_vars.get("hostvars", {})
    if name not in hostvars:
        raise impossible(f"{name} is no host of the inventory")
    known = hostvars[name]
    if known.get("ansible_connection", "ssh") not in ("ssh", "smart", "ansible.builtin.ssh"):
        raise impossible(f"{name} isn't reached by SSH")
    connection = connection_loader.get("ssh", play_context)
    names = C.config.get_plugin_vars("connection", "ansible.builtin.ssh") + C.config.get_plugin_vars(
        "connection", "ssh"
    )
    options = {key: known[key] for key in (*names, "inventory_hostname") if key in known}
    options.setdefault("ansible_host", name)
    connection.set_options(var_options=options)
    return connection


def impossible(why: str) -> GridError:
    """The error where the controller can't join two hosts."""
    return GridError(
        "relay_impossible",
        f"the controller can't join the two hosts: {why}",
        remedy="Use Ansible's ssh connection with keys for both, and let their SSH servers forward TCP (AllowTcpForwarding)",
    )


def command(connection: t.Any, *words: str) -> list[bytes]:
    """The command by which Ansible would start ssh on this connection, with other words and a connection of its own."""
    if not hasattr(connection, "_build_command"):
        raise impossible("a host isn't reached by Ansible's ssh connection")
    host = connection.get_option("host")
    program = connection.get_option("ssh_executable")
    argv = connection._build_command(program, "ssh", "-N", "-T", *words, str(host))  # pylint: disable=protected-access
    at = argv.index(program.encode()) + 1
    return [*argv[:at], *_OWN, *argv[at:]]


@contextlib.contextmanager
def relayed(source: t.Any, destination: t.Any, port: int) -> t.Iterator[int]:
    """While the block runs, the port on the destination's loopback that leads to the SSH server of the source.

    :param port: the source's SSH server's, as seen on the source itself.
    :raises GridError: ``relay_impossible``.
    """
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="virtuoso-"))
        socket = os.path.join(directory, "s")
        near = _start(stack, command(source, "-L", f"{socket}:127.0.0.1:{port}"))
        _until(near, lambda dummy: os.path.exists(socket), "the source")
        far = _start(stack, command(destination, "-R", f"127.0.0.1:0:{socket}"))
        said = _until(far, _ALLOCATED.search, "the destination")
        yield int(t.cast("re.Match[bytes]", _ALLOCATED.search(said)).group(1))


def _start(stack: contextlib.ExitStack, argv: t.Sequence[bytes]) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(  # pylint: disable=consider-using-with
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    stack.callback(_end, process)
    return process


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stderr is not None:
        process.stderr.close()


def _until(process: subprocess.Popen[bytes], ready: t.Callable[[bytes], t.Any], whom: str) -> bytes:
    """What ssh has said when it is ready. :raises GridError: ``relay_impossible`` where it ends, or takes too long."""
    said = b""
    end = time.monotonic() + DEADLINE
    stderr = t.cast(t.BinaryIO, process.stderr)
    with selectors.DefaultSelector() as selector:
        selector.register(stderr, selectors.EVENT_READ)
        while not ready(said):
            if process.poll() is not None or time.monotonic() > end:
                last = said.decode("utf-8", "replace").strip().splitlines()[-1:] or ["it said nothing"]
                raise impossible(f"ssh to {whom} isn't ready: {last[0][:300]}")
            if selector.select(0.1):
                part = os.read(stderr.fileno(), 4096)
                if not part:
                    selector.unregister(stderr)
                said += part
    return said
