# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A way from one host to another's libvirt, through the controller, with the play's own privileges on the other.

A socket on the first host leads to one here (ssh -R). Whoever connects to it gets a process on the second host that
becomes root as Ansible does it for a task there, and then is libvirt's own virt-ssh-helper, which joins its input and
output to the daemon's socket. So the account that logs in has no access to libvirt, before or afterwards.
"""

from __future__ import annotations

import contextlib
import copy
import os
import selectors
import shlex
import socket
import subprocess
import threading
import time
import typing as t

from ansible.plugins.become import BecomeBase
from ansible.plugins.connection import ConnectionBase
from ansible.plugins.loader import get_shell_plugin
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.plugin_utils import _ssh

HELPER = "virt-ssh-helper qemu:///system"
_READY = b"virtuoso-ready\n"
_MOST_WORDS = 65536
"""Bytes that are read of what comes before the helper: banners, prompts."""
_BLOCK = 65536
_LOST = 255
"""The code with which ssh ends where its own connection is the matter."""


class Forwarding(t.NamedTuple):
    """A way to another host's libvirt."""

    path: t.Callable[[], str]
    """waits until the way is there, and returns the path of its socket; raises ``target_unreachable`` or
    ``become_failed``"""
    broken: t.Callable[[], bool]
    """whether the way has ended, because a connection broke"""


def privileged(become: BecomeBase | None, command: str) -> str:
    """The command with the privileges that a task has, as a line for the host's shell.

    :param become: the become plugin of the connection; ``None`` where the login has them.
    """
    if become is None:
        return command
    shell = get_shell_plugin(shell_type="sh", executable="/bin/sh")
    return str(become.build_become_command(command, shell))


class Helper:
    """A process on the other host that is joined to its libvirt."""

    def __init__(self, there: ConnectionBase) -> None:
        # One of its own: a plugin knows the prompt of the last command only, and tasks run there meanwhile.
        self._become = copy.copy(t.cast("BecomeBase | None", getattr(there, "become", None)))
        line = privileged(self._become, f"echo {_READY.decode().strip()}; exec {HELPER}")
        self.process = subprocess.Popen(
            [*_ssh.command(there), line.encode()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )
        self.stdin = t.cast(t.BinaryIO, self.process.stdin)
        self.stdout = t.cast(t.BinaryIO, self.process.stdout)
        self.stderr = t.cast(t.BinaryIO, self.process.stderr)
        self.early = b""
        """What the helper has said already."""

    def begin(self) -> None:
        """Wait until it has its privileges; a prompt is answered. :raises GridError: ``become_failed``,
        ``target_unreachable``."""
        said, told, answered = b"", b"", False
        end = time.monotonic() + _ssh.DEADLINE
        with selectors.DefaultSelector() as selector:
            for stream in (self.stdout, self.stderr):
                selector.register(stream, selectors.EVENT_READ)
            while time.monotonic() < end and len(said) + len(told) < _MOST_WORDS:
                if _READY in said:
                    self.early = said.partition(_READY)[2]
                    return
                if self._asks(said + told) and not answered:
                    answered = True
                    self.stdin.write(self._password())
                    # What was said before is no answer to it.
                    told = b""
                self._refuse(told)
                for key, dummy in selector.select(0.1):
                    part = os.read(key.fd, 4096)
                    if not part:
                        selector.unregister(key.fileobj)
                    elif key.fd == self.stdout.fileno():
                        said += part
                    else:
                        told += part
                if not selector.get_map():
                    # Its code tells whether ssh's own connection was the matter.
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        self.process.wait(2)
                    break
        raise self._failure(told or said)

    def _asks(self, text: bytes) -> bool:
        become = self._become
        return become is not None and become.expect_prompt() and become.check_password_prompt(text)

    def _password(self) -> bytes:
        return f"{t.cast(BecomeBase, self._become).get_option('become_pass')}\n".encode()

    def _refuse(self, told: bytes) -> None:
        """:raises GridError: ``become_failed`` where the password was wrong, or there is none."""
        become = self._become
        if become is not None and (become.check_incorrect_password(told) or become.check_missing_password(told)):
            raise self._failure(told)

    def _failure(self, told: bytes) -> GridError:
        said = told.decode("utf-8", "replace").strip().splitlines()
        lines = [line for line in said if not self._asks(line.encode())]
        last = lines[-1][:300] if lines else "it said nothing"
        if self._become is not None and self.process.poll() != _LOST:
            return GridError(
                "become_failed",
                f"the target's libvirt can't be reached with the privileges of the play: {last}",
                tried=f"become {self._become.get_option('become_user') or 'root'} by {self._become.name} there",
                remedy="Give become_method, become_user and the password for that host, as for the play itself:"
                " ansible_become_password, --ask-become-pass or --become-password-file",
            )
        return GridError(
            "target_unreachable",
            f"the source can't be joined to the target's libvirt: ssh to the target isn't ready: {last}",
            remedy="See that Ansible reaches the target by SSH, and that libvirt's virt-ssh-helper is there"
            " (packages libvirt-daemon or libvirt-daemon-common)",
        )

    def join(self, client: socket.socket) -> None:
        """Carry bytes both ways until one side ends."""
        with contextlib.suppress(OSError):
            client.sendall(self.early)
        back = threading.Thread(target=self._to_client, args=(client,), daemon=True)
        back.start()
        with contextlib.suppress(OSError, ValueError):
            while part := client.recv(_BLOCK):
                self.stdin.write(part)
        with contextlib.suppress(OSError):
            self.stdin.close()
        back.join()

    def _to_client(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            while part := os.read(self.stdout.fileno(), _BLOCK):
                client.sendall(part)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)

    def end(self) -> None:
        """End it, and wait for that."""
        with contextlib.suppress(OSError):
            self.stdin.close()
        _ssh.end(self.process)
        self.stderr.close()


class _Door:
    """The socket here. The first who comes gets a helper that was begun before; each one after him another."""

    def __init__(self, there: ConnectionBase, path: str) -> None:
        self._there = there
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen(8)
        self.helpers = [Helper(there)]
        self.error: GridError | None = None
        self.begun = threading.Event()
        self._over = False
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        try:
            self.helpers[0].begin()
        except GridError as exc:
            self.error = exc
        self.begun.set()
        spare: Helper | None = self.helpers[0]
        while self.error is None and not self._over:
            try:
                client = self._listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=self._welcome, args=(client, spare), daemon=True).start()
            spare = None

    def _welcome(self, client: socket.socket, helper: Helper | None) -> None:
        with client, contextlib.suppress(GridError, OSError):
            if helper is None:
                helper = Helper(self._there)
                self.helpers.append(helper)
                helper.begin()
            helper.join(client)

    @property
    def lost(self) -> bool:
        """Whether a connection to the target broke."""
        return any(helper.process.poll() == _LOST for helper in self.helpers)

    def close(self) -> None:
        """Let nobody in any more, and end those who are."""
        self._over = True
        with contextlib.suppress(OSError):
            # accept(2) in the other thread ends by this; by close alone it doesn't.
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for helper in self.helpers:
            helper.end()


@contextlib.contextmanager
def forwarded(there: ConnectionBase, here: ConnectionBase) -> t.Iterator[Forwarding]:
    """While the block runs, a socket on the host ``here`` leads to libvirt on the host ``there``.

    Other work may be done until the way is there.

    :param there: with the become plugin by which a task there has its privileges.
    :raises GridError: ``target_unreachable``, ``become_failed``.
    """
    path = f"/tmp/virtuoso-{os.urandom(16).hex()}.sock"
    with _ssh.Way() as way:
        with _to_the_target():
            door = _Door(there, way.socket)
            try:
                far = way.start(here, f"rm -f {shlex.quote(path)}", "-R", f"{path}:{way.socket}")
            except BaseException:
                door.close()
                raise

        def ready() -> str:
            if not door.begun.wait(_ssh.DEADLINE + 5):
                raise GridError(
                    "target_unreachable",
                    f"the target's libvirt did not answer within {_ssh.DEADLINE:g} s",
                    remedy="See that Ansible reaches the target, then run again",
                )
            if door.error is not None:
                raise door.error
            with _to_the_target():
                _ssh.wait_ready(far, "the source")
            return path

        try:
            yield Forwarding(ready, lambda: door.lost or far.poll() is not None)
        finally:
            door.close()


@contextlib.contextmanager
def _to_the_target() -> t.Iterator[None]:
    """Where a way can't be made, it is the target that can't be reached."""
    try:
        yield
    except GridError as exc:
        raise GridError(
            "target_unreachable",
            f"the source can't be joined to the target's libvirt: {exc.msg}",
            remedy="Use Ansible's ssh connection for both, and let the source's SSH server forward sockets"
            " (AllowStreamLocalForwarding)",
        ) from exc
