# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A managed host's local socket, there on another managed host for a while: through the controller's own SSH
connections to both.

The two ssh processes end with the ``with`` block, and also when the controller's process is killed: they run a command
that reads what we hold the other end of.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shlex
import subprocess
import tempfile
import time
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.plugin_utils import _relay

LIBVIRT = "/run/libvirt/libvirt-sock"
_READY = b"virtuoso-ready"


def _argv(connection: t.Any, command: str, *words: str) -> list[bytes]:
    """Ansible's own call of ssh to a host, with words of ours and a command that ends when its input does."""
    argv = [word for word in _relay.command(connection, *words) if word != b"-N"]
    return [*argv, command.encode()]


@contextlib.contextmanager
def forwarded(there: t.Any, here: t.Any, socket: str = LIBVIRT) -> t.Iterator[str]:
    """While the block runs, the path on the host ``here`` of a socket that leads to ``socket`` on the host ``there``.

    :param there: a connection as :func:`_relay.connection_to` returns it. :param here: the same, or a task's own.
    :raises GridError: ``target_unreachable``.
    """
    path = f"/tmp/virtuoso-{os.urandom(16).hex()}.sock"
    ready = f"echo {_READY.decode()}; cat >/dev/null"
    try:
        with contextlib.ExitStack() as stack:
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="virtuoso-"))
            local = os.path.join(directory, "s")
            near = _start(stack, _argv(there, ready, "-L", f"{local}:{socket}"))
            far = _start(stack, _argv(here, f"{ready}; rm -f {shlex.quote(path)}", "-R", f"{path}:{local}"))
            _until_ready(near, "the target")
            _until_ready(far, "the source")
            yield path
    except GridError as exc:
        if exc.code != "relay_impossible":
            raise
        raise GridError(
            "target_unreachable",
            f"the source can't be joined to the target's libvirt: {exc.msg}",
            remedy="Use Ansible's ssh connection for both, and let their SSH servers forward sockets (AllowStreamLocalForwarding)",
        ) from exc


def _start(stack: contextlib.ExitStack, argv: t.Sequence[bytes]) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(  # pylint: disable=consider-using-with
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    stack.callback(_end, process)
    return process


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let the command at the other end come to its end, which tidies up there."""
    t.cast(t.BinaryIO, process.stdin).close()
    try:
        process.wait(2)
    except subprocess.TimeoutExpired:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(2)
        if process.poll() is None:
            process.kill()
            process.wait()
    t.cast(t.BinaryIO, process.stdout).close()


def _until_ready(process: subprocess.Popen[bytes], whom: str) -> None:
    said, end = b"", time.monotonic() + _relay.DEADLINE
    output = t.cast(t.BinaryIO, process.stdout)
    with selectors.DefaultSelector() as selector:
        selector.register(output, selectors.EVENT_READ)
        while _READY not in said:
            if selector.select(0.1):
                part = os.read(output.fileno(), 4096)
                if not part:
                    break
                said += part
            if time.monotonic() > end:
                break
    if _READY not in said:
        last = said.decode("utf-8", "replace").strip().splitlines()[-1:] or ["it said nothing"]
        raise _relay.impossible(f"ssh to {whom} isn't ready: {last[0][:300]}")
