# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs FRR's daemons as the BGP speaker of the overlay, and asks them for their state. Standard library only."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.host.evpn import INSTANCE, owned_by_somebody
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.host.records import Session

UNIT = "virtuoso-overlay-frr.service"
FILE = "frr.conf"
PROGRAMS = "/usr/lib/frr"
SOCKETS = f"/run/frr/{INSTANCE}"
OWNERS = "/etc/frr/frr.conf"


def _run(argv: t.Sequence[str], text: str | None = None) -> subprocess.CompletedProcess[str]:
    stdin = subprocess.DEVNULL if text is None else None
    return subprocess.run(list(argv), input=text, stdin=stdin, capture_output=True, text=True, timeout=60, check=False)


def foreign() -> str | None:
    """Why FRR on this host belongs to others, or ``None``."""
    try:
        with open(OWNERS, encoding="utf-8", errors="replace") as file:
            text: str | None = file.read()
    except OSError:
        text = None
    active = _run(["systemctl", "is-active", "frr.service"]).stdout.strip() in ("active", "activating", "reloading")
    return owned_by_somebody(text, active, _run(["systemctl", "is-enabled", "frr.service"]).stdout.strip() == "enabled")


def ask(*commands: str) -> str:
    """The answer of FRR to commands of vtysh; empty where it doesn't run."""
    argv = ["vtysh", "-N", INSTANCE, *(word for command in commands for word in ("-c", command))]
    try:
        done = _run(argv)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return "" if done.returncode else done.stdout


def sessions() -> t.Dict[str, Session]:
    """The BGP sessions by the other end's address."""
    try:
        peers = json.loads(ask("show bgp l2vpn evpn summary json") or "{}").get("peers") or {}
    except ValueError:
        return {}
    return {
        address: {"state": peer.get("state"), "seconds": int(peer.get("peerUptimeMsec") or 0) // 1000}
        for address, peer in sorted(peers.items())
    }


def reconfigure(directory: str, text: str) -> str | None:
    """Load other settings into a running FRR; its complaint, or ``None``."""
    path = f"{directory}/{FILE}.new"
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    try:
        done = _run(["vtysh", "-N", INSTANCE, "-f", path])
    finally:
        os.unlink(path)
    # vtysh writes complaints to either stream.
    return (done.stderr or done.stdout).strip()[-600:] or "vtysh failed" if done.returncode else None


def _state() -> t.Tuple[int, str]:
    """The unit's main process, and its state letter, see proc(5)."""
    pid = int(_run(["systemctl", "show", "--property=MainPID", "--value", UNIT]).stdout.strip() or 0)
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return pid, file.read().rsplit(")", 1)[1].split()[0]
    except OSError:
        return 0, ""


def is_stopped() -> bool | None:
    """Whether the unit's processes are stopped (SIGSTOP); ``None`` where there are none."""
    pid, state = _state()
    return state in ("T", "t") if pid else None


def stop_or_continue(stop: bool) -> None:
    """Stop all processes of the unit (SIGSTOP), or let them continue. What they made in the kernel stays, and peers
    don't notice for some seconds."""
    _run(["systemctl", "kill", f"--signal={'STOP' if stop else 'CONT'}", UNIT])


def _wait(what: t.Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if what():
            return True
        time.sleep(0.05)
    return what()


def serve(directory: str) -> int:
    """Run FRR's daemons until one of them ends; systemd then starts them all again. While another FRR runs on this
    host, wait.

    :returns: the exit code.
    """
    why = foreign()
    if why:
        print(f"{why}: BGP is not spoken for the overlay while it is there", file=sys.stderr)  # pylint: disable=ansible-bad-function
    while foreign():
        time.sleep(5)
    for path in (os.path.dirname(SOCKETS), SOCKETS):
        os.makedirs(path, exist_ok=True)
        shutil.chown(path, "frr", "frr")
    for name in os.listdir(SOCKETS):
        with contextlib.suppress(OSError):
            os.unlink(f"{SOCKETS}/{name}")
    common = ["-N", INSTANCE, "-P", "0", "-A", "127.0.0.1"]
    began = []
    # From FRR 9 on zebra needs mgmtd.
    if os.path.exists(f"{PROGRAMS}/mgmtd"):
        began.append(subprocess.Popen([f"{PROGRAMS}/mgmtd", *common]))  # pylint: disable=consider-using-with
        _wait(lambda: os.path.exists(f"{SOCKETS}/mgmtd.vty"), 5)
    began.append(subprocess.Popen([f"{PROGRAMS}/zebra", *common, "-f", "/dev/null"]))  # pylint: disable=consider-using-with
    _wait(lambda: os.path.exists(f"{SOCKETS}/zserv.api"), 5)
    # Hosts of a large grid reach each other by their default routes, which FRR ignores unless told otherwise.
    _wait(lambda: bool(ask("configure terminal", "ip nht resolve-via-default", "end", "show version")), 5)
    began.append(subprocess.Popen([f"{PROGRAMS}/bgpd", *common, "-f", f"{directory}/{FILE}"]))  # pylint: disable=consider-using-with
    os.wait()
    # Killed, so that they don't remove what they have put into the kernel.
    for child in began:
        child.kill()
    return 1
