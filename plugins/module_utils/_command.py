# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a program from an argument list: no shell, a deadline, a typed error with the end of what it said."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError

_TAIL = 2000


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the program and what it started (it leads a process group of its own)."""
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
    :param accept: exit codes that are no error.
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
