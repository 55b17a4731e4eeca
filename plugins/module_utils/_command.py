# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run programs from argument lists: no shell, a deadline, typed errors. ``bound_command`` ties one to this process."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError

_TAIL = 2000
"""Characters of a program's standard error that are kept."""

# setpriv(1): the program is killed with this process, so that it can't write while the next run already works.
BOUND_TO_US = ("setpriv", "--pdeathsig", "KILL", "--")
# unshare(1): the program's mounts and processes end with it, so nothing has to be unmounted.
CONTAINED = (*BOUND_TO_US, "unshare", "--mount", "--pid", "--fork", "--kill-child", "--")

_PACKAGES = {
    "qemu-img": "qemu-utils",
    "mmdebstrap": "mmdebstrap",
    "sfdisk": "fdisk",
    "mformat": "mtools",
    "mcopy": "mtools",
    "syslinux": "syslinux",
    "mke2fs": "e2fsprogs",
    "zstd": "zstd",
    "ssh": "openssh-client",
}


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the program and its children: it leads a process group of its own."""
    for number, patience in ((signal.SIGTERM, 5), (signal.SIGKILL, None)):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            pass
        try:
            process.wait(patience)
            return
        except subprocess.TimeoutExpired:
            continue


def command(
    argv: t.Sequence[str],
    *,
    timeout: float = 600,
    input: bytes | None = None,  # pylint: disable=redefined-builtin
    env: t.Mapping[str, str] | None = None,
    cwd: str | None = None,
    code: str = "command_failed",
    object: str | None = None,  # pylint: disable=redefined-builtin
    remedy: str | None = None,
    accept: t.Container[int] = (0,),
) -> str:
    """Run ``argv`` and return its standard output as text.

    :param timeout: seconds until the program and its children are ended.
    :param env: variables added to the environment, which is otherwise the caller's with ``LC_ALL=C.UTF-8``.
    :param code: of the error for another exit code.
    :param accept: exit codes that are not an error.
    :raises GridError: ``program_missing``, ``timed_out``, or ``code`` with ``rc`` and ``stderr`` (its last 2,000
        characters).
    """
    shown = shlex.join(argv)
    try:
        process = subprocess.Popen(  # pylint: disable=consider-using-with
            list(argv),
            stdin=subprocess.PIPE if input is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd,
            env={**os.environ, "LC_ALL": "C.UTF-8", **(env or {})},
            start_new_session=True,
        )
    except FileNotFoundError as exc:
        raise GridError(
            "program_missing",
            f"the program {argv[0]} is not installed",
            object=object,
            tried=shown,
            remedy="Run the playbook virtuoso.grid.setup on this host, which installs it",
        ) from exc
    try:
        stdout, stderr = process.communicate(input, timeout)
    except subprocess.TimeoutExpired as exc:
        raise GridError(
            "timed_out", f"{argv[0]} did not end within {timeout:g} s", object=object, tried=shown, remedy=remedy
        ) from exc
    finally:
        if process.poll() is None:
            _end(process)
    if process.returncode not in accept:
        said = stderr.decode("utf-8", "replace").strip()[-_TAIL:]
        last = said.splitlines()[-1] if said else "it said nothing"
        raise GridError(
            code,
            f"{argv[0]} ended with code {process.returncode}: {last}",
            object=object,
            tried=shown,
            remedy=remedy,
            rc=process.returncode,
            stderr=said,
        )
    return stdout.decode("utf-8", "replace")


def bound_command(
    argv: t.Sequence[str], *, contained: bool = False, limits: t.Sequence[str] = (), **options: t.Any
) -> str:
    """Like :func:`command`, for a program that must not outlive this process.

    :param contained: give it mount and process namespaces of its own.
    :param limits: options of prlimit(1), for example ``--as=1073741824``, for programs that read untrusted input.
    :param options: those of :func:`command`.
    """
    prefix = [*(CONTAINED if contained else BOUND_TO_US), *(("prlimit", *limits, "--") if limits else ())]
    try:
        return command([*prefix, *argv], **options)
    except GridError as exc:
        # Users know the program, not what it was wrapped in
        exc.tried = shlex.join(argv)[:1000]
        exc.msg = exc.msg.replace(prefix[0], argv[0], 1)
        # setpriv, unshare and prlimit end with 127 where the program is not installed
        if exc.details.get("rc") == 127 and f"failed to execute {argv[0]}:" in str(exc.details["stderr"]):
            raise GridError(
                "program_missing",
                f"the program {argv[0]} is not installed",
                tried=exc.tried,
                remedy=missing_remedy(argv[0]),
            ) from exc
        if str(exc.details.get("stderr", "")).startswith("unshare: unshare failed"):
            raise GridError(
                "not_permitted",
                "this host does not let us make namespaces",
                tried=exc.tried,
                remedy="Run as root (become: true)",
            ) from exc
        raise


def missing_remedy(program: str) -> str:
    """The remedy for a program that is not installed."""
    package = _PACKAGES.get(program, program)
    return f"Install the Debian package {package}, or run the playbook virtuoso.grid.setup on this host, which does"
