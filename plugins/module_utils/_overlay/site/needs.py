# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks in one call what links need on a host: packages, the account of the taps, the SSH server's settings."""

from __future__ import annotations

import contextlib
import os
import pwd
import subprocess
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.host.interfaces import ACCOUNT

HOME, SHELL, PASSWORD = "/nonexistent", "/usr/sbin/nologin", "*"
"""The account of the taps, as the role makes it. It has no password but isn't locked, because OpenSSH refuses keys of
locked accounts."""
_SSHD = "/usr/sbin/sshd"


class Needs(t.TypedDict):
    """What a host has.

    ``packages``: those that are installed. ``account``: the account of the taps is as it should be. ``penalties``: the
    SSH server delays clients that fail often; ``None`` where there is no SSH server.
    """

    packages: t.List[str]
    account: bool
    penalties: t.Optional[bool]


def installed(wanted: t.Collection[str], listed: str) -> t.List[str]:
    """Those of the packages that are installed (pure).

    :param listed: output of ``dpkg-query``: on each line a package's state and name.
    """
    there = {
        words[1]
        for words in (line.split() for line in listed.splitlines())
        if len(words) == 2 and words[0] == "installed"
    }
    return sorted(there.intersection(wanted))


def password(shadow: str, name: str) -> str | None:
    """The password field of an account in the text of shadow(5) (pure); ``None`` where the account is missing."""
    for line in shadow.splitlines():
        fields = line.split(":")
        if fields[0] == name and len(fields) > 1:
            return fields[1]
    return None


def _account(name: str = ACCOUNT) -> bool:
    try:
        entry = pwd.getpwnam(name)
        with open("/etc/shadow", encoding="utf-8") as file:
            kept = password(file.read(), name)
    except (KeyError, OSError):
        return False
    return (entry.pw_dir, entry.pw_shell, kept) == (HOME, SHELL, PASSWORD)


def _output(*argv: str) -> str:
    """A program's standard output, whatever its exit code; empty where it can't be run."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        return subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False
        ).stdout
    return ""


def needs(packages: t.Sequence[str]) -> Needs:
    """Check this host. :param packages: names of Debian packages."""
    query = ("dpkg-query", "--show", "--showformat", "${db:Status-Status} ${Package}\n", *packages)
    listed = _output(*query) if packages else ""
    penalties = "persourcepenalties" in _output(_SSHD, "-T") if os.path.exists(_SSHD) else None
    return {"packages": installed(packages, listed), "account": _account(), "penalties": penalties}
