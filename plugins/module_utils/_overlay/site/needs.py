# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host has of what links need, found in one look: a task for each would take longer than all of it."""

from __future__ import annotations

import contextlib
import os
import pwd
import subprocess
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.host.interfaces import ACCOUNT

HOME, SHELL, PASSWORD = "/nonexistent", "/usr/sbin/nologin", "*"
"""Of the account of the taps, as the role makes it. No password, and yet not locked: OpenSSH refuses keys of locked
accounts."""
_SSHD = "/usr/sbin/sshd"


def installed(wanted: t.Collection[str], told: str) -> t.List[str]:
    """Those of the packages that are installed (pure).
    :param told: a line for each, its state and its name, as ``dpkg-query`` says them."""
    there = {
        words[1]
        for words in (line.split() for line in told.splitlines())
        if len(words) == 2 and words[0] == "installed"
    }
    return sorted(there.intersection(wanted))


def password(told: str, name: str) -> str | None:
    """What an account's line in shadow(5) has for a password (pure)."""
    for line in told.splitlines():
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


def _said(*argv: str) -> str:
    """What a program says, whatever it thinks of that."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        return subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False
        ).stdout
    return ""


def needs(packages: t.Sequence[str]) -> t.Dict[str, t.Any]:
    """``packages`` (those that are installed), ``account`` (whether that of the taps is as it should be), ``penalties``
    (whether the SSH server makes whoever fails often wait; ``None`` without one).
    """
    told = (
        _said("dpkg-query", "--show", "--showformat", "${db:Status-Status} ${Package}\n", *packages) if packages else ""
    )
    penalties = "persourcepenalties" in _said(_SSHD, "-T") if os.path.exists(_SSHD) else None
    return {"packages": installed(packages, told), "account": _account(), "penalties": penalties}
