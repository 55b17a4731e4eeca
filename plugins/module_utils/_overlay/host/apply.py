# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings a host's part of the overlay to what a file says: a program of its own, installed by the role ``overlay``, run
by systemd at every boot.

``overlay.py apply`` converges; ``overlay.py rollback`` goes back to the part before. Standard library only. What is
decided is in pure functions (:mod:`interfaces`, :mod:`rules`, :mod:`sessions`, :mod:`wireguard`); everything that is
made here has the alias ``virtuoso-overlay``, and nothing else is ever touched.
"""

from __future__ import annotations

import contextlib
import fcntl
import grp
import json
import os
import re
import signal
import subprocess
import sys
import time
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.host import (
    evpn,
    groups,
    sessions,
    speaker,
    wireguard,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.host.interfaces import (
    ACCOUNT,
    MARK,
    Link,
    Part,
    foreign,
    forwarding_steps,
    steps,
    wanted_links,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.host.rules import rules

DIRECTORY = "/etc/virtuoso/overlay"
UNIT = "virtuoso-overlay-ssh@{}.service"
WIREGUARD_UNIT = "virtuoso-overlay-wireguard.service"
ROLLBACK = "virtuoso-overlay-rollback"
TUN = "/dev/net/tun"
LOADED = "/run/virtuoso-overlay.nft"
"""A copy of the rules that were loaded last: it doesn't outlive a boot, as they don't."""

_DEVICE = re.compile(r"(vb|ve|vt|vw|vm|tap)[0-9a-f]{1,12}", re.ASCII)
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", re.ASCII)
_ADDRESS = re.compile(r"[0-9A-Za-z.:-]{1,255}", re.ASCII)
_IPV4 = re.compile(r"[0-9]{1,3}([.][0-9]{1,3}){3}", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,8}", re.ASCII)
_KEY = re.compile(r"ssh-ed25519 [A-Za-z0-9+/=]{40,100}", re.ASCII)


class OverlayError(Exception):
    """It can't be done: ``code``, and a text that says why and what to do."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


def check(part: Part) -> Part:
    """The part, where every word in it has the form that it must have: they become words of batches, rules and
    settings."""
    links = part.get("links") or []
    words = [("device", _DEVICE, each) for key in ("links", "guests", "forwarding") for each in part.get(key) or []]
    words += [("mac", _MAC, each) for key in ("guests", "forwarding") for each in part.get(key) or []]
    meshes = [link for link in links if link.get("transport") == evpn.KIND]
    words += [("remote", _ADDRESS, each) for each in links if each not in meshes]
    words += [
        (key, form, each) for each in meshes for key, form in (("local", _IPV4), ("asn", _NUMBER), ("vni", _NUMBER))
    ]
    words += [("address", _IPV4, peer) for each in meshes for peer in each.get("peers", ())]
    words += [("bridge", _DEVICE, each) for each in part.get("networks") or []]
    words += [("remote", _ADDRESS, each) for each in (part.get("wireguard") or {}).get("peers", ())]
    words += [(key, _KEY, each) for key in ("client_key", "host_key") for each in links if each.get(key)]
    for key, form, entry in words:
        if not form.fullmatch(str(entry.get(key))):
            raise OverlayError(
                "invalid_part",
                f"{str(entry.get(key))[:40]!r} is no {key}: run the playbook virtuoso.grid.overlay, which writes the file",
            )
    found = {key: list(part.get(key) or []) for key in ("networks", "links", "guests", "forwarding", "peers")}
    return {**found, "wireguard": part["wireguard"]} if part.get("wireguard") else found


def run(argv: t.Sequence[str], text: str | None = None, *, must: bool = True) -> str:
    """Run a program, with its input."""
    source: t.Dict[str, t.Any] = {"input": text} if text is not None else {"stdin": subprocess.DEVNULL}
    done = subprocess.run(
        list(argv),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
        **source,
    )
    if done.returncode and must:
        said = (done.stderr or done.stdout).strip()[-600:]
        raise OverlayError(
            "overlay_failed", f"{' '.join(argv)} failed: {said}. See that the kernel has what it needs, and run again"
        )
    return "" if done.returncode else done.stdout


def observe() -> t.Dict[str, Link]:
    """All interfaces, in the terms of :func:`wanted_links`."""
    ports = {
        entry["ifname"]: entry for entry in json.loads(run(["bridge", "-json", "-details", "link", "show"]) or "[]")
    }
    found: t.Dict[str, Link] = {}
    for entry in json.loads(run(["ip", "-json", "-details", "link", "show"])):
        info = entry.get("linkinfo") or {}
        data = info.get("info_data") or {}
        port = ports.get(entry["ifname"]) or {}
        found[entry["ifname"]] = {
            "alias": entry.get("ifalias"),
            "kind": info.get("info_kind"),
            "mtu": entry.get("mtu"),
            "master": entry.get("master"),
            "up": "UP" in entry.get("flags", ()),
            "group": entry.get("group"),
            "id": data.get("id"),
            "remote": data.get("remote") or data.get("remote6"),
            "local": data.get("local") or data.get("local6"),
            "role": tuple("on" if port.get(key) else "off" for key in ("flood", "learning")) if port else None,
        }
        if found[entry["ifname"]]["kind"] != "vxlan":
            for key in ("id", "remote", "local"):
                found[entry["ifname"]].pop(key)
    return found


def fdb() -> t.List[t.Dict[str, t.Any]]:
    """All entries of bridges and VXLAN devices."""
    return json.loads(run(["bridge", "-json", "fdb", "show"]) or "[]")


def static_entries(told: t.Iterable[t.Dict[str, t.Any]], devices: t.Container[str]) -> t.Set[t.Tuple[str, str]]:
    """(device, MAC address) of the bridges' static entries on these devices."""
    return {
        (entry["ifname"], entry["mac"])
        for entry in told
        if entry.get("state") == "static" and entry.get("master") and entry["ifname"] in devices
    }


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return None


def write(path: str, text: str, mode: int = 0o644) -> bool:
    """Write a file whole or not at all; true when it was another one."""
    if _read(path) == text:
        return False
    os.makedirs(os.path.dirname(path), exist_ok=True)
    new = f"{path}.new"
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    os.rename(new, path)
    return True


def read_part(path: str) -> Part:
    """The part in a file; an empty one where there is none."""
    text = _read(path)
    try:
        return check(json.loads(text) if text else {})
    except (ValueError, AttributeError, TypeError) as exc:
        raise OverlayError(
            "invalid_part", f"{path} can't be read: {exc}. Run the playbook virtuoso.grid.overlay, which writes it anew"
        ) from exc


def _rules_differ(part: Part) -> bool:
    if not part["networks"]:
        return bool(_read(LOADED))
    return _read(LOADED) != rules(part) or not run(["nft", "list", "table", "bridge", "virtuoso_overlay"], must=False)


def files_of(part: Part, directory: str = DIRECTORY) -> t.Dict[str, str]:
    """Every file that links need, by path."""
    files = sessions.ssh_files(part, directory)
    if part.get("wireguard"):
        files[f"{directory}/wireguard.conf"] = wireguard.settings(part)
        files[f"{directory}/wireguard.address"] = f"{part['wireguard']['address']} {part['wireguard']['mtu']}\n"
    said = evpn.settings(part)
    if said:
        files[f"{directory}/{speaker.FILE}"] = said
    return files


def _stale(part: Part, files: t.Mapping[str, str], directory: str) -> t.List[str]:
    there = (
        [f"{directory}/ssh/{name}" for name in os.listdir(f"{directory}/ssh")]
        if os.path.isdir(f"{directory}/ssh")
        else []
    )
    there += [
        f"{directory}/{name}"
        for name in ("authorized_keys", "wireguard.conf", "wireguard.address", "wireguard.key", speaker.FILE)
        if os.path.exists(f"{directory}/{name}")
    ]
    # An empty part is none: so it is after going back to before the first one.
    there += [f"{directory}/part.json"] if not part["networks"] and os.path.exists(f"{directory}/part.json") else []
    kept = {f"{directory}/ssh/{name}.key" for name in sessions.clients(part)}
    kept |= {f"{name}.pub" for name in kept} | ({f"{directory}/wireguard.key"} if part.get("wireguard") else set())
    return sorted(path for path in there if path not in files and path not in kept)


def _units(part: Part, changed: t.Collection[str]) -> t.Dict[str, t.List[str]]:
    """Units to start, to start anew and to stop."""
    mine = [UNIT.format(name) for name in sessions.clients(part)] + ([WIREGUARD_UNIT] if part.get("wireguard") else [])
    mine += [speaker.UNIT] if evpn.wanted(part) == "runs" else []
    kept = [speaker.UNIT] if evpn.wanted(part) == "frozen" else []
    listed = run(
        [
            "systemctl",
            "list-units",
            "--all",
            "--plain",
            "--no-legend",
            "virtuoso-overlay-ssh@*",
            WIREGUARD_UNIT,
            speaker.UNIT,
        ]
    )
    states = {words[0]: words[2] for words in (line.split() for line in listed.splitlines()) if len(words) > 2}
    touched = {UNIT.format(os.path.basename(path).split(".")[0]) for path in changed if "/ssh/" in path}
    touched |= {WIREGUARD_UNIT for path in changed if "/wireguard." in path}
    # One that is between two attempts has been started, and goes on trying by itself.
    running = {name for name, state in states.items() if state in ("active", "activating")}
    return {
        "start": [name for name in mine if name not in running],
        "restart": [name for name in mine if name in running and name in touched],
        "stop": sorted(
            name for name in states if name not in (*mine, *kept) and (name in running or states[name] == "failed")
        ),
    }


def differences(part: Part, directory: str = DIRECTORY) -> t.Dict[str, t.Any]:
    """What would be done: ``ip`` and ``bridge`` lines, ``rules`` (bool), ``files``, ``stale`` files, units to
    ``start``, ``restart`` and ``stop``.

    :raises OverlayError: ``foreign_interface``.
    """
    wanted, there = wanted_links(part), observe()
    others = foreign(wanted, there)
    if others:
        raise OverlayError(
            "foreign_interface",
            f"{', '.join(others)}: somebody else's interface has the name that is needed. Rename or remove it, and run again",
        )
    lines = steps(wanted, there)
    remade = {line.split()[-1] for line in lines if line.startswith("link delete")}
    devices = {name for name, link in wanted.items() if link.get("role")} - remade
    files = files_of(part, directory)
    changed = sorted(path for path, text in files.items() if _read(path) != text)
    told = fdb()
    units = _units(part, changed)
    return {
        "ip": lines,
        "bridge": forwarding_steps(part, static_entries(told, devices)) + evpn.mesh_steps(part, told, remade),
        "forget": evpn.resting_steps(part, told),
        "speaker": _speaker(part, directory, units),
        "groups": groups.steps(part, there, {name for name in wanted if name not in there or name in remade}),
        "rules": _rules_differ(part),
        "files": changed,
        "stale": _stale(part, files, directory),
        "tun": _tun_closed(part),
        **units,
    }


def _speaker(part: Part, directory: str, units: t.Mapping[str, t.Sequence[str]]) -> t.Dict[str, t.Any]:
    """What to do with a BGP speaker that runs: ``hold`` it or let it go on (a bool), ``tell`` it other settings, or
    nothing."""
    if not evpn.ends(part) or speaker.UNIT in (*units["start"], *units["stop"]):
        return {}
    want, still, found = evpn.wanted(part), speaker.still(), {}
    if still is not None and still != (want == "frozen"):
        found["hold"] = want == "frozen"
    path = f"{directory}/{speaker.FILE}"
    before, after = _read(path), files_of(part, directory).get(path)
    if want == "runs" and before and after and before != after:
        found["tell"] = evpn.changes(before, after)
    return found


def _load_rules(part: Part) -> None:
    run(["nft", "-f", "-"], rules(part))
    if part["networks"]:
        write(LOADED, rules(part))
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(LOADED)


def _close(part: Part) -> None:
    """No address of the host's own on a network: not even a link-local one, and no answer for the others'."""
    for network in part["networks"]:
        for path, value in (
            (f"ipv6/conf/{network['bridge']}/disable_ipv6", "1"),
            (f"ipv4/conf/{network['bridge']}/arp_ignore", "8"),
        ):
            with contextlib.suppress(OSError), open(f"/proc/sys/net/{path}", "w", encoding="ascii") as file:
                file.write(value)


def _tun_closed(part: Part) -> bool:
    """Whether the account of the taps can't open the device that makes them: Debian's udev opens it to all, a host
    without udev may not."""
    try:
        found = os.stat(TUN)
    except FileNotFoundError:
        return False
    needed = any(link["transport"] == "ssh" for link in part["links"])
    return (
        needed
        and not found.st_mode & 0o006 == 0o006
        and (found.st_mode & 0o060 != 0o060 or found.st_gid != grp.getgrnam(ACCOUNT).gr_gid)
    )


def regroup(todo: t.Mapping[str, t.Any], *which: str) -> None:
    """Let ports leave and join groups. It makes nothing but speed: one that has just gone is no error."""
    lines = [line for key in which for line in todo["groups"][key]]
    if lines:
        run(["ip", "-force", "-batch", "-"], "".join(f"{line}\n" for line in lines), must=False)


def carry_out(part: Part, todo: t.Mapping[str, t.Any], directory: str = DIRECTORY) -> None:
    """Do what :func:`differences` said."""
    files = files_of(part, directory)
    for name in todo["stop"]:
        run(["systemctl", "disable", "--now", "--quiet", name], must=False)
        run(["systemctl", "reset-failed", name], must=False)
    for path in todo["files"]:
        write(path, files[path])
    regroup(todo, "leave")
    # The rules come first: there is no moment in which a port is there and they are not.
    if todo["rules"] and part["networks"]:
        _load_rules(part)
    if todo["ip"]:
        run(["ip", "-batch", "-"], "".join(f"{line}\n" for line in todo["ip"]))
        _close(part)
    regroup(todo, "join")
    if todo["rules"] and not part["networks"]:
        _load_rules(part)
    if todo["bridge"]:
        run(["bridge", "-batch", "-"], "".join(f"{line}\n" for line in todo["bridge"]))
    if todo["forget"]:
        run(["bridge", "-force", "-batch", "-"], "".join(f"{line}\n" for line in todo["forget"]), must=False)
    _carry_out_speaker(todo, directory)
    if todo["tun"]:
        os.chown(TUN, -1, grp.getgrnam(ACCOUNT).gr_gid)
        os.chmod(TUN, 0o660)
    for name in todo["start"]:
        # Not waiting: a peer that is not there yet is tried again and again.
        run(["systemctl", "enable", "--now", "--no-block", "--quiet", name])
    for name in todo["restart"]:
        run(["systemctl", "restart", "--no-block", name])
    for path in todo["stale"]:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def _carry_out_speaker(todo: t.Mapping[str, t.Any], directory: str) -> None:
    if "hold" in todo["speaker"]:
        speaker.hold(todo["speaker"]["hold"])
    if "tell" in todo["speaker"]:
        text = todo["speaker"]["tell"]
        said = speaker.tell(directory, text) if text else None
        if said:
            raise OverlayError(
                "overlay_failed",
                f"FRR doesn't take its settings: {said}. Look at the journal of {speaker.UNIT}, and run again",
            )
        if text is None:
            run(["systemctl", "restart", "--no-block", speaker.UNIT])


@contextlib.contextmanager
def locked() -> t.Iterator[None]:
    """One at a time on this host: a second play waits for the first."""
    os.makedirs("/run/lock", exist_ok=True)
    with open("/run/lock/virtuoso-overlay", "w", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def userspace(device: str, directory: str = "/run/wireguard") -> subprocess.Popen[bytes]:
    """The packaged program ``wireguard-go``, which listens now or has ended, on a socket of its own: one that was
    killed leaves its behind."""
    listens = os.path.join(directory, f"{device}.sock")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(listens)
    program = subprocess.Popen(["wireguard-go", "--foreground", device])
    end = time.monotonic() + 5
    while not os.path.exists(listens) and time.monotonic() < end and program.poll() is None:
        time.sleep(0.05)
    return program


def wireguard_run(directory: str = DIRECTORY) -> int:
    """Have WireGuard as long as this runs: the kernel's, or else that of the packaged program ``wireguard-go``."""
    device, there = wireguard.DEVICE, observe()
    if device in there and there[device]["alias"] != MARK:
        raise OverlayError(
            "foreign_interface",
            f"{device}: somebody else's interface has the name that is needed. Rename or remove it, and run again",
        )
    signal.signal(signal.SIGTERM, lambda *dummy: sys.exit(0))  # pylint: disable=ansible-bad-function
    run(["ip", "link", "delete", "dev", device], must=False)
    program = None
    try:
        if subprocess.run(
            ["ip", "link", "add", "dev", device, "type", "wireguard"], capture_output=True, check=False
        ).returncode:
            program = userspace(device)
        run(["ip", "link", "set", "dev", device, "alias", MARK])
        run(["wg", "setconf", device, f"{directory}/wireguard.conf"])
        run(["wg", "set", device, "private-key", f"{directory}/wireguard.key"])
        address, mtu = (_read(f"{directory}/wireguard.address") or "").split()
        run(["ip", "-6", "address", "replace", f"{address}/64", "dev", device, "nodad"])
        run(["ip", "link", "set", "dev", device, "mtu", mtu, "up"])
        while program is None:
            signal.pause()
        return program.wait()
    finally:
        if program is not None:
            program.terminate()
        run(["ip", "link", "delete", "dev", device], must=False)


def main(arguments: t.Sequence[str]) -> int:
    """Converge, or go back."""
    current, before = f"{DIRECTORY}/part.json", f"{DIRECTORY}/part.before.json"
    try:
        if arguments[0] == "wireguard":
            return wireguard_run()
        if arguments[0] == "frr":
            return speaker.serve(DIRECTORY)
        with locked():
            if arguments[0] == "rollback" and os.path.exists(before):
                os.rename(before, current)
            part = read_part(current)
            carry_out(part, differences(part))
    except OverlayError as exc:
        print(exc, file=sys.stderr)  # pylint: disable=ansible-bad-function
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))  # pylint: disable=ansible-bad-function
