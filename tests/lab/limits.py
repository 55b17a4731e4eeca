# SPDX-License-Identifier: GPL-3.0-or-later
"""What the machine must have left for the lab's hosts, which share its kernel's limits: inotify instances, that root
may have 128 of by default."""

from __future__ import annotations

import sys
from pathlib import Path

from command import LabError, run

SYSCTL = "fs.inotify.max_user_instances"
_ENOUGH = 1024
PER_HOST = 16
"""systemd has 8 and as many again for a session, login and libvirtd one each."""
SPARE = 4
"""For services that tests start again on hosts that are up."""

_PROBE = """
import ctypes, sys
call, wanted = ctypes.CDLL(None).inotify_init1, int(sys.argv[1])
print(next((got for got in range(wanted) if call(0o2000000) < 0), wanted))
"""


def left(wanted: int) -> int:
    """How many instances root can have, up to so many: tried, for nothing tells it."""
    return int(run([sys.executable, "-c", _PROBE, str(wanted)]).stdout)


def lack(got: int, hosts: int, limit: str) -> str | None:
    """What is wrong where ``got`` instances are left for ``hosts`` that are to be started; ``None`` where they do."""
    need = SPARE + PER_HOST * hosts
    if got >= need:
        return None
    why = f"{hosts} hosts need {need}" if hosts else f"the hosts need {need} to start a service again"
    enough = max(_ENOUGH, 2 * int(limit))
    return (
        f"root has {got} inotify instances left of {SYSCTL} = {limit}, and {why}: libvirtd would hang at its "
        f"first connection. "
        f"Raise the limit: sysctl -w {SYSCTL}={enough} (and write it to a file in /etc/sysctl.d to keep it), or "
        f"remove other containers; then run again."
    )


def check(hosts: int) -> None:
    """Refuse to start so many hosts where they would hang."""
    limit = Path("/proc/sys", *SYSCTL.split(".")).read_text(encoding="ascii").strip()
    text = lack(left(SPARE + PER_HOST * hosts), hosts, limit)
    if text is not None:
        raise LabError(text)
