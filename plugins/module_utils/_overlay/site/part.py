# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Applies a host's part of the overlay as one transaction: it is rolled back if a step fails or nobody confirms it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._command import command
from ansible_collections.virtuoso.grid.plugins.module_utils._diff import diff
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError, Result
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.host import apply, sessions
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.host.interfaces import ACCOUNT
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.host.records import Part

PART = f"{apply.DIRECTORY}/part.json"
BEFORE = f"{apply.DIRECTORY}/part.before.json"
PROGRAM = "/usr/local/lib/virtuoso/overlay.py"

_ETH_P_RARP = 0x8035


def current() -> Part:
    """The part that was applied last. :raises GridError: ``invalid_part``."""
    with _typed():
        return apply.read_part(PART)


@contextlib.contextmanager
def _typed() -> t.Iterator[None]:
    try:
        yield
    except apply.OverlayError as exc:
        raise GridError(
            exc.code, str(exc), object="its part of the overlay", tried="bring it to the part that is wanted"
        ) from exc


def _key(path: str, make: t.Callable[[], None], check_mode: bool) -> bool:
    """Make a key if it is missing; whether it was."""
    if os.path.exists(path):
        return False
    if not check_mode:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        make()
    return True


def _make_wireguard_key(path: str) -> None:
    secret = command(["wg", "genkey"], code="key_failed", remedy="Install wireguard-tools")
    apply.write(path, secret, 0o600)


def keys(part: Part, check_mode: bool) -> tuple[dict[str, str], bool]:
    """Make the keys that the part's links need; private keys never leave the host.

    :returns: the public keys by device, of SSH links whose client is this host, and of ``wireguard``; and whether a key
        was missing.
    :raises GridError: ``key_failed``.
    """
    found, made = {}, False
    for device in sessions.clients(part):
        path = f"{apply.DIRECTORY}/ssh/{device}.key"

        def make(path: str = path) -> None:
            command(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", path], code="key_failed")
            # OpenSSH refuses keys that others can read, so the file must belong to the link's account.
            command(["chown", f"{ACCOUNT}:", path], code="key_failed")

        made = _key(path, make, check_mode) or made
        if os.path.exists(path + ".pub"):
            with open(path + ".pub", encoding="ascii") as file:
                found[device] = " ".join(file.read().split()[:2])
    if part.get("wireguard"):
        path = f"{apply.DIRECTORY}/wireguard.key"
        made = _key(path, lambda: _make_wireguard_key(path), check_mode) or made
        if os.path.exists(path):
            with open(path, "rb") as secret:
                found["wireguard"] = command(["wg", "pubkey"], input=secret.read(), code="key_failed").strip()
    return found, made


def _arm(seconds: int) -> None:
    """Start a timer that rolls back, unless :func:`confirm` is called first."""
    command(["systemctl", "stop", f"{apply.ROLLBACK}.timer"], accept=range(256))
    command(["systemctl", "reset-failed", f"{apply.ROLLBACK}.service"], accept=range(256))
    argv = [
        "systemd-run",
        "--quiet",
        f"--unit={apply.ROLLBACK}",
        f"--on-active={seconds}s",
        "--timer-property=AccuracySec=1s",
        "/usr/bin/python3",
        PROGRAM,
        "rollback",
    ]
    command(argv, code="overlay_failed")


def unconfirmed() -> bool:
    """Whether the last change still needs :func:`confirm`."""
    return os.path.exists(BEFORE)


def confirm() -> bool:
    """Keep the last change: the controller still reaches the host. Returns whether there was one to confirm."""
    command(["systemctl", "stop", f"{apply.ROLLBACK}.timer"], accept=range(256))
    if not unconfirmed():
        return False
    os.unlink(BEFORE)
    return True


def bring(part: t.Mapping[str, t.Any], *, check_mode: bool, rollback: int) -> Result:
    """Apply a part, not checked yet, to the host; the module's result.

    :param rollback: seconds until the host goes back to the part before, if nobody confirms; 0 for never.
    :raises GridError: ``foreign_interface``, ``invalid_part``, ``overlay_failed``. The host is then as it was before.
    """
    with _typed(), apply.locked():
        wanted = apply.check(part)
        before = apply.read_part(PART)
        todo = apply.differences(wanted)
        actions = _actions(todo)
        written = before != wanted
        if written and not actions:
            actions = ["note the part"]
        result: Result = {
            "changed": bool(actions),
            "actions": actions,
            "part": wanted,
            "diff": diff("part of the overlay", before, wanted),
        }
        if not actions and not check_mode:
            # Machines may have started meanwhile. Putting their ports into groups only makes the rules faster, so it
            # isn't a change.
            apply.regroup(todo, "leave", "join")
        if check_mode or not actions:
            return result
        _carry_out(wanted, before, todo, rollback if written else 0)
    return result


def _actions(todo: apply.Steps) -> list[str]:
    """The steps as text, for the module's result (pure)."""
    actions = [f"ip: {line}" for line in todo["ip"]] + [f"bridge: {line}" for line in todo["bridge"]]
    actions += [f"start {name}" for name in todo["start"]] + [f"restart {name}" for name in todo["restart"]]
    actions += [f"stop {name}" for name in todo["stop"]]
    actions += [f"write {os.path.basename(path)}" for path in todo["files"]]
    actions += [f"remove {os.path.basename(path)}" for path in todo["stale"]]
    actions += [f"bridge: {line}" for line in todo["forget"]]
    if "stop" in todo["speaker"]:
        actions.append("silence BGP" if todo["speaker"]["stop"] else "let speak BGP")
    if todo["rules"]:
        actions.append("load the rules")
    if todo["tun"]:
        actions.append("open /dev/net/tun to the account of the taps")
    return actions


def _carry_out(wanted: Part, before: Part, todo: apply.Steps, rollback: int) -> None:
    if rollback:
        apply.write(BEFORE, json.dumps(before, indent=1, sort_keys=True) + "\n", 0o600)
        _arm(rollback)
    try:
        apply.write(PART, json.dumps(wanted, indent=1, sort_keys=True) + "\n", 0o600)
        apply.carry_out(wanted, todo)
    except (apply.OverlayError, OSError):
        # Undo as far as possible, and report the first error.
        with contextlib.suppress(apply.OverlayError, OSError):
            apply.write(PART, json.dumps(before, indent=1, sort_keys=True) + "\n", 0o600)
            apply.carry_out(before, apply.differences(before))
        confirm()
        raise
    if not wanted["networks"]:
        for path in (PART, f"{apply.DIRECTORY}/ssh"):
            with contextlib.suppress(OSError):
                (os.rmdir if os.path.isdir(path) else os.unlink)(path)


def announcement(mac: str) -> bytes:
    """A frame from which every bridge on its way learns where a machine is: a RARP request (RFC 903), as QEMU sends it
    after a migration."""
    own = bytes(int(octet, 16) for octet in mac.split(":"))
    return (
        b"\xff" * 6
        + own
        + struct.pack("!HHHBBH", _ETH_P_RARP, 1, 0x0800, 6, 4, 3)
        + own
        + b"\0" * 4
        + own
        + b"\0" * 4
        + b"\0" * 18
    )


def announce(part: Part, macs: t.Container[str]) -> list[str]:
    """Announce those of these machines that are on this host.

    :param macs: in lower case. :returns: the MAC addresses that were announced.
    """
    bridge = {network["name"]: network["bridge"] for network in part["networks"]}
    announced = []
    for guest in part["guests"]:
        if guest["mac"] not in macs or not os.path.exists(f"/sys/class/net/{guest['device']}"):
            continue
        # The bridge here may still have an entry that the machine is elsewhere.
        command(
            ["bridge", "fdb", "replace", guest["mac"], "dev", guest["device"], "master", "dynamic"],
            code="overlay_failed",
        )
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as out:
            out.bind((bridge[guest["network"]], 0))
            out.send(announcement(guest["mac"]))
        announced.append(guest["mac"])
    return announced
