# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host's part of the overlay as one transaction: written, carried out, and gone back on where it fails or the
controller stays away."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._command import command
from ansible_collections.virtuoso.grid.plugins.module_utils._diff import diff
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.host import apply, sessions
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.host.interfaces import ACCOUNT

PART = f"{apply.DIRECTORY}/part.json"
BEFORE = f"{apply.DIRECTORY}/part.before.json"
PROGRAM = "/usr/local/lib/virtuoso/overlay.py"

_ETH_P_RARP = 0x8035


def current() -> apply.Part:
    """The part that the host was brought to last."""
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
    """Have a key there; whether it has to be made."""
    if os.path.exists(path):
        return False
    if not check_mode:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        make()
    return True


def _make_wireguard_key(path: str) -> None:
    secret = command(["wg", "genkey"], code="key_failed", remedy="Install wireguard-tools")
    apply.write(path, secret, 0o600)


def keys(part: apply.Part, check_mode: bool) -> tuple[dict[str, str], bool]:
    """The public key of each SSH link that begins here, and ``wireguard``'s, made where there is none; and whether one
    was. The private ones stay here."""
    found, made = {}, False
    for device in sessions.clients(part):
        path = f"{apply.DIRECTORY}/ssh/{device}.key"

        def make(path: str = path) -> None:
            command(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", path], code="key_failed")
            # OpenSSH takes no key that others can read, and the link's account has no other way to it.
            command(["chown", f"{ACCOUNT}:", path], code="key_failed")

        made = _key(path, make, check_mode) or made
        if os.path.exists(path + ".pub"):
            with open(path + ".pub", encoding="ascii") as file:
                found[device] = " ".join(file.read().split()[:2])
    if part.get("wireguard"):
        path = f"{apply.DIRECTORY}/wireguard.key"
        made = _key(path, lambda: _make_wireguard_key(path), check_mode) or made
        if os.path.exists(path):
            with open(path, "rb") as file:
                found["wireguard"] = command(["wg", "pubkey"], input=file.read(), code="key_failed").strip()
    return found, made


def _arm(seconds: int) -> None:
    """Go back by itself, unless :func:`confirm` comes first."""
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
    """Whether the host goes back by itself unless :func:`confirm` comes."""
    return os.path.exists(BEFORE)


def confirm() -> bool:
    """The controller has found its way back: what was done stays."""
    command(["systemctl", "stop", f"{apply.ROLLBACK}.timer"], accept=range(256))
    if not unconfirmed():
        return False
    os.unlink(BEFORE)
    return True


def bring(part: apply.Part, *, check_mode: bool, rollback: int) -> dict[str, t.Any]:
    """Bring the host to ``part``. :param rollback: seconds until it goes back if nobody confirms; 0 for never.

    :raises GridError: ``foreign_interface``, ``invalid_part``, ``overlay_failed``; the host is as before then.
    """
    with _typed(), apply.locked():
        wanted = apply.check(part)
        before = apply.read_part(PART)
        todo = apply.differences(wanted)
        actions = [f"{key}: {each}" for key in ("ip", "bridge") for each in todo[key]]
        actions += [f"{key} {each}" for key in ("start", "restart", "stop") for each in todo[key]]
        actions += [f"write {os.path.basename(path)}" for path in todo["files"]] + [
            f"remove {os.path.basename(path)}" for path in todo["stale"]
        ]
        actions += [f"bridge: {each}" for each in todo["forget"]]
        actions += [f"{'silence' if todo['speaker']['hold'] else 'let speak'} BGP"] if "hold" in todo["speaker"] else []
        actions += ["load the rules"] if todo["rules"] else []
        actions += ["open /dev/net/tun to the account of the taps"] if todo["tun"] else []
        written = before != wanted
        if written and not actions:
            actions = ["note the part"]
        result = {
            "changed": bool(actions),
            "actions": actions,
            "part": wanted,
            "diff": diff("part of the overlay", before, wanted),
        }
        if not actions and not check_mode:
            # A machine has begun since: its port is found sooner from now on. Nothing else comes of it.
            apply.regroup(todo, "leave", "join")
        if check_mode or not actions:
            return result
        _carry_out(wanted, before, todo, rollback if written else 0)
    return result


def _carry_out(wanted: apply.Part, before: apply.Part, todo: t.Mapping[str, t.Any], rollback: int) -> None:
    if rollback:
        apply.write(BEFORE, json.dumps(before, indent=1, sort_keys=True) + "\n", 0o600)
        _arm(rollback)
    try:
        apply.write(PART, json.dumps(wanted, indent=1, sort_keys=True) + "\n", 0o600)
        apply.carry_out(wanted, todo)
    except (apply.OverlayError, OSError):
        # As it was, as far as that can be; the first error is the one to tell.
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
    """A frame by which every bridge on the way learns where a machine is: a RARP request, as QEMU sends after a
    migration (RFC 903)."""
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


def announce(part: apply.Part, macs: t.Container[str]) -> list[str]:
    """Announce these machines, those that are here; the names of their MAC addresses."""
    bridge = {network["name"]: network["bridge"] for network in part["networks"]}
    told = []
    for guest in part["guests"]:
        if guest["mac"] not in macs or not os.path.exists(f"/sys/class/net/{guest['device']}"):
            continue
        # The bridge here may still hold that the machine is elsewhere.
        command(
            ["bridge", "fdb", "replace", guest["mac"], "dev", guest["device"], "master", "dynamic"],
            code="overlay_failed",
        )
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as out:
            out.bind((bridge[guest["network"]], 0))
            out.send(announcement(guest["mac"]))
        told.append(guest["mac"])
    return told
