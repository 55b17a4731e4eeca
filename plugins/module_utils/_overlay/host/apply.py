# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program on a host that applies the host's part of the overlay, which it reads from a file.

The role ``overlay`` installs it, and systemd runs it at every boot. ``overlay.py apply`` applies the part,
``overlay.py rollback`` goes back to the one before. Standard library only. Decisions are pure functions
(:mod:`interfaces`, :mod:`rules`, :mod:`sessions`, :mod:`wireguard`). All interfaces that it makes have the alias
``virtuoso-overlay``; it never touches others.
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
    foreign,
    forwarding_steps,
    steps,
    wanted_links,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.host.records import FdbEntry, Interface, Part
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.host.rules import rules

DIRECTORY = "/etc/virtuoso/overlay"
UNIT = "virtuoso-overlay-ssh@{}.service"
WIREGUARD_UNIT = "virtuoso-overlay-wireguard.service"
ROLLBACK = "virtuoso-overlay-rollback"
TUN = "/dev/net/tun"
LOADED = "/run/virtuoso-overlay.nft"
"""A copy of the rules that were loaded last. Like them it is gone after a reboot."""

_DEVICE = re.compile(r"(vb|ve|vt|vw|vm|tap)[0-9a-f]{1,12}", re.ASCII)
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", re.ASCII)
_ADDRESS = re.compile(r"[0-9A-Za-z.:-]{1,255}", re.ASCII)
_IPV4 = re.compile(r"[0-9]{1,3}([.][0-9]{1,3}){3}", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,8}", re.ASCII)
_KEY = re.compile(r"ssh-ed25519 [A-Za-z0-9+/=]{40,100}", re.ASCII)


class OverlayError(Exception):
    """A failure: ``code``, and a text that says why and what to do."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class SpeakerSteps(t.TypedDict, total=False):
    """What to do with a BGP speaker that runs.

    ``stop``: stop its processes, or let them continue. ``settings``: text to load; ``None`` to restart it.
    """

    stop: bool
    settings: t.Optional[str]


class Units(t.TypedDict):
    """Names of systemd units by what to do with them."""

    start: t.List[str]
    restart: t.List[str]
    stop: t.List[str]


class Steps(Units):
    """What brings a host to a part.

    ``ip``, ``bridge`` and ``forget``: lines for ``ip`` and ``bridge``; errors of the last are ignored. ``groups``: see
    ``groups.steps``. ``rules``: load the rules. ``files`` to write and ``stale`` ones to remove: paths. ``tun``: give
    the account of the taps access to /dev/net/tun.
    """

    ip: t.List[str]
    bridge: t.List[str]
    forget: t.List[str]
    speaker: SpeakerSteps
    groups: t.Dict[str, t.List[str]]
    rules: bool
    files: t.List[str]
    stale: t.List[str]
    tun: bool


def check(part: t.Mapping[str, t.Any]) -> Part:
    """Check an untrusted part. Its values become words of batches, rules and settings, so each must have its form.

    :raises OverlayError: ``invalid_part``.
    """
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
                f"{str(entry.get(key))[:40]!r} is no {key}: "
                "run the playbook virtuoso.grid.overlay, which writes the file",
            )
    found: t.Dict[str, object] = {
        key: list(part.get(key) or []) for key in ("networks", "links", "guests", "forwarding", "peers")
    }
    if part.get("wireguard"):
        found["wireguard"] = part["wireguard"]
    return t.cast(Part, found)


def run(argv: t.Sequence[str], text: str | None = None, *, must: bool = True) -> str:
    """Run a program; its standard output.

    :param text: its standard input. :param must: whether a failure is an error; without it the output is empty then.
    :raises OverlayError: ``overlay_failed``.
    """
    done = subprocess.run(
        list(argv),
        input=text,
        stdin=subprocess.DEVNULL if text is None else None,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )
    if done.returncode and must:
        said = (done.stderr or done.stdout).strip()[-600:]
        raise OverlayError(
            "overlay_failed", f"{' '.join(argv)} failed: {said}. See that the kernel has what it needs, and run again"
        )
    return "" if done.returncode else done.stdout


def observe() -> t.Dict[str, Interface]:
    """All interfaces of this host, by name."""
    ports = {
        entry["ifname"]: entry for entry in json.loads(run(["bridge", "-json", "-details", "link", "show"]) or "[]")
    }
    found: t.Dict[str, Interface] = {}
    for entry in json.loads(run(["ip", "-json", "-details", "link", "show"])):
        info = entry.get("linkinfo") or {}
        data = info.get("info_data") or {}
        port = ports.get(entry["ifname"]) or {}
        interface: Interface = {
            "alias": entry.get("ifalias"),
            "kind": info.get("info_kind"),
            "mtu": entry.get("mtu"),
            "master": entry.get("master"),
            "up": "UP" in entry.get("flags", ()),
            "group": entry.get("group"),
            "role": tuple("on" if port.get(key) else "off" for key in ("flood", "learning")) if port else None,
        }
        if interface["kind"] == "vxlan":
            interface["id"] = data.get("id")
            interface["remote"] = data.get("remote") or data.get("remote6")
            interface["local"] = data.get("local") or data.get("local6")
        found[entry["ifname"]] = interface
    return found


def fdb() -> t.List[FdbEntry]:
    """All forwarding entries of bridges and VXLAN devices."""
    return json.loads(run(["bridge", "-json", "fdb", "show"]) or "[]")


def static_entries(entries: t.Iterable[FdbEntry], devices: t.Container[str]) -> t.Set[t.Tuple[str, str]]:
    """(device, MAC address) of the bridges' static entries on these devices."""
    return {
        (entry["ifname"], entry["mac"])
        for entry in entries
        if entry.get("state") == "static" and entry.get("master") and entry["ifname"] in devices
    }


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return None


def write(path: str, text: str, mode: int = 0o644) -> bool:
    """Write a file atomically; whether it changed."""
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
    """Read the part in a file; an empty one where there is no file. :raises OverlayError: ``invalid_part``."""
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
    """The content of every file that links need, by path."""
    files = sessions.ssh_files(part, directory)
    if part.get("wireguard"):
        files[f"{directory}/wireguard.conf"] = wireguard.settings(part)
        files[f"{directory}/wireguard.address"] = f"{part['wireguard']['address']} {part['wireguard']['mtu']}\n"
    settings = evpn.settings(part)
    if settings:
        files[f"{directory}/{speaker.FILE}"] = settings
    return files


def _stale(part: Part, files: t.Mapping[str, str], directory: str) -> t.List[str]:
    """Paths of files that no link needs any more."""
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
    # For an empty part there is no file, as before the first part.
    there += [f"{directory}/part.json"] if not part["networks"] and os.path.exists(f"{directory}/part.json") else []
    kept = {f"{directory}/ssh/{name}.key" for name in sessions.clients(part)}
    kept |= {f"{name}.pub" for name in kept} | ({f"{directory}/wireguard.key"} if part.get("wireguard") else set())
    return sorted(path for path in there if path not in files and path not in kept)


def _units(part: Part, changed: t.Collection[str]) -> Units:
    """Units to start, to restart and to stop.

    :param changed: paths of the files that change.
    """
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
    # A unit between two attempts has been started; it continues to try by itself.
    running = {name for name, state in states.items() if state in ("active", "activating")}
    return {
        "start": [name for name in mine if name not in running],
        "restart": [name for name in mine if name in running and name in touched],
        "stop": sorted(
            name for name in states if name not in (*mine, *kept) and (name in running or states[name] == "failed")
        ),
    }


def _foreign_interface(names: str) -> OverlayError:
    return OverlayError(
        "foreign_interface",
        f"{names}: somebody else's interface has the name that is needed. Rename or remove it, and run again",
    )


def differences(part: Part, directory: str = DIRECTORY) -> Steps:
    """Compute what must be done to have the part. :raises OverlayError: ``foreign_interface``."""
    wanted, there = wanted_links(part), observe()
    others = foreign(wanted, there)
    if others:
        raise _foreign_interface(", ".join(others))
    lines = steps(wanted, there)
    remade = {line.split()[-1] for line in lines if line.startswith("link delete")}
    devices = {name for name, link in wanted.items() if link.get("role")} - remade
    files = files_of(part, directory)
    changed = sorted(path for path, text in files.items() if _read(path) != text)
    entries = fdb()
    units = _units(part, changed)
    return {
        "ip": lines,
        "bridge": forwarding_steps(part, static_entries(entries, devices)) + evpn.mesh_steps(part, entries, remade),
        "forget": evpn.resting_steps(part, entries),
        "speaker": _speaker(part, directory, units),
        "groups": groups.steps(part, there, {name for name in wanted if name not in there or name in remade}),
        "rules": _rules_differ(part),
        "files": changed,
        "stale": _stale(part, files, directory),
        "tun": _tun_closed(part),
        **units,
    }


def _speaker(part: Part, directory: str, units: Units) -> SpeakerSteps:
    """What to do with a BGP speaker that runs; nothing where its unit is started or stopped anyway."""
    if not evpn.ends(part) or speaker.UNIT in (*units["start"], *units["stop"]):
        return {}
    found: SpeakerSteps = {}
    want, stopped = evpn.wanted(part), speaker.is_stopped()
    if stopped is not None and stopped != (want == "frozen"):
        found["stop"] = want == "frozen"
    path = f"{directory}/{speaker.FILE}"
    before, after = _read(path), files_of(part, directory).get(path)
    if want == "runs" and before and after and before != after:
        found["settings"] = evpn.changes(before, after)
    return found


def _load_rules(part: Part) -> None:
    run(["nft", "-f", "-"], rules(part))
    if part["networks"]:
        write(LOADED, rules(part))
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(LOADED)


def _close(part: Part) -> None:
    """Keep the host itself off its networks: no IPv6 address on a bridge, and no ARP answers."""
    for network in part["networks"]:
        for path, value in (
            (f"ipv6/conf/{network['bridge']}/disable_ipv6", "1"),
            (f"ipv4/conf/{network['bridge']}/arp_ignore", "8"),
        ):
            with contextlib.suppress(OSError), open(f"/proc/sys/net/{path}", "w", encoding="ascii") as file:
                file.write(value)


def _tun_closed(part: Part) -> bool:
    """Whether the account of the taps can't open /dev/net/tun. Debian's udev gives everybody access, but a host may be
    without udev."""
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


def regroup(todo: Steps, *which: str) -> None:
    """Let ports ``leave`` and ``join`` groups. Best effort: a port that has just gone away is not an error."""
    lines = [line for key in which for line in todo["groups"][key]]
    if lines:
        run(["ip", "-force", "-batch", "-"], "".join(f"{line}\n" for line in lines), must=False)


def carry_out(part: Part, todo: Steps, directory: str = DIRECTORY) -> None:
    """Do what :func:`differences` returned. :raises OverlayError: ``overlay_failed``."""
    files = files_of(part, directory)
    for name in todo["stop"]:
        run(["systemctl", "disable", "--now", "--quiet", name], must=False)
        run(["systemctl", "reset-failed", name], must=False)
    for path in todo["files"]:
        write(path, files[path])
    regroup(todo, "leave")
    # The rules come first, so that no port is ever there without them.
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
        # Without waiting: the unit tries again until its peer is there.
        run(["systemctl", "enable", "--now", "--no-block", "--quiet", name])
    for name in todo["restart"]:
        run(["systemctl", "restart", "--no-block", name])
    for path in todo["stale"]:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def _carry_out_speaker(todo: Steps, directory: str) -> None:
    if "stop" in todo["speaker"]:
        speaker.stop_or_continue(todo["speaker"]["stop"])
    if "settings" in todo["speaker"]:
        text = todo["speaker"]["settings"]
        complaint = speaker.reconfigure(directory, text) if text else None
        if complaint:
            raise OverlayError(
                "overlay_failed",
                f"FRR doesn't take its settings: {complaint}. Look at the journal of {speaker.UNIT}, and run again",
            )
        if text is None:
            run(["systemctl", "restart", "--no-block", speaker.UNIT])


@contextlib.contextmanager
def locked() -> t.Iterator[None]:
    """A lock of this host: a second run waits for the first."""
    os.makedirs("/run/lock", exist_ok=True)
    with open("/run/lock/virtuoso-overlay", "w", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def userspace(device: str, directory: str = "/run/wireguard") -> subprocess.Popen[bytes]:
    """Start the packaged program ``wireguard-go``, and wait until it listens or has ended.

    :param directory: of its socket. An earlier one that was killed may have left a socket, which is removed first.
    """
    socket = os.path.join(directory, f"{device}.sock")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(socket)
    program = subprocess.Popen(["wireguard-go", "--foreground", device])
    end = time.monotonic() + 5
    while not os.path.exists(socket) and time.monotonic() < end and program.poll() is None:
        time.sleep(0.05)
    return program


def wireguard_run(directory: str = DIRECTORY) -> int:
    """Keep the WireGuard interface as long as this process runs: the kernel's, or else one of ``wireguard-go``.

    :returns: the exit code.
    """
    device, there = wireguard.DEVICE, observe()
    if device in there and there[device]["alias"] != MARK:
        raise _foreign_interface(device)
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
    """Run the command in ``arguments``; the exit code."""
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
