# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings a host's part of the overlay to what a file says: a program of its own, installed by the role ``overlay``, run by systemd at every boot.

``overlay.py apply`` converges; ``overlay.py rollback`` goes back to the part before. Standard library only. What is decided is in pure functions
(:func:`steps`, :func:`rules`, :func:`ssh_files`); everything that is made here has the alias :data:`MARK`, and nothing else is ever touched.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import subprocess
import sys
import typing as t

Part = t.Dict[str, t.Any]
Link = t.Dict[str, t.Any]

MARK = "virtuoso-overlay"
DIRECTORY = "/etc/virtuoso/overlay"
UNIT = "virtuoso-overlay-ssh@{}.service"
ROLLBACK = "virtuoso-overlay-rollback"
PORT = 4789
"""VXLAN's (RFC 7348, section 5)."""
ACCOUNT = "virtuoso-tap"
"""The system user that the ends of SSH taps belong to: it can log in for nothing else."""
ROLES = {"tree": ("on", "on"), "standby": ("off", "off"), "shortcut": ("off", "off")}
"""Flooding and learning of a link's port."""

_DEVICE = re.compile(r"(vb|vt|vm|tap)[0-9a-f]{1,12}", re.ASCII)
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", re.ASCII)
_ADDRESS = re.compile(r"[0-9A-Za-z.:-]{1,255}", re.ASCII)


class OverlayError(Exception):
    """It can't be done: ``code``, and a text that says why and what to do."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


def check(part: Part) -> Part:
    """The part, where every word in it has the form that it must have: they become words of batches and rules."""
    words = [("device", _DEVICE, each) for key in ("links", "guests", "forwarding") for each in part.get(key) or []]
    words += [("mac", _MAC, each) for key in ("guests", "forwarding") for each in part.get(key) or []]
    words += [("remote", _ADDRESS, each) for each in part.get("links") or []]
    words += [("bridge", _DEVICE, each) for each in part.get("networks") or []]
    for key, form, entry in words:
        if not form.fullmatch(str(entry.get(key))):
            raise OverlayError("invalid_part", f"{str(entry.get(key))[:40]!r} is no {key}: run the playbook virtuoso.grid.overlay, which writes the file")
    return {key: list(part.get(key) or []) for key in ("networks", "links", "guests", "forwarding", "peers")}


def _bridge_of(part: Part) -> t.Dict[str, str]:
    return {network["name"]: network["bridge"] for network in part["networks"]}


def wanted_links(part: Part) -> t.Dict[str, Link]:
    """Every interface that is to be there, by name: ``kind``, ``mtu`` and what makes it another one."""
    mtu = {network["name"]: network["mtu"] for network in part["networks"]}
    bridge = _bridge_of(part)
    found: t.Dict[str, Link] = {network["bridge"]: {"kind": "bridge", "mtu": network["mtu"]} for network in part["networks"]}
    for link in part["links"]:
        kind = "tun" if link["transport"] == "ssh" else "vxlan"
        same: Link = {"kind": kind, "mtu": mtu[link["network"]], "master": bridge[link["network"]], "role": link["role"]}
        if kind == "vxlan":
            same.update(id=link["vni"], remote=link["remote"])
        found[link["device"]] = same
    return found


def foreign(wanted: t.Mapping[str, Link], there: t.Mapping[str, Link]) -> t.List[str]:
    """Interfaces of names that are needed, made by somebody else."""
    return sorted(name for name in wanted if name in there and there[name]["alias"] != MARK)


def _remade(want: Link, have: Link) -> bool:
    return any(want.get(key) != have.get(key) for key in ("kind", "id", "remote"))


def steps(wanted: t.Mapping[str, Link], there: t.Mapping[str, Link]) -> t.Tuple[t.List[str], t.List[str]]:
    """Lines for ``ip -batch`` and for ``bridge -batch``, in their order; none where all is as it should be."""
    ip: t.List[str] = []
    bridge: t.List[str] = []
    mine = {name: have for name, have in there.items() if have["alias"] == MARK}
    for name in sorted(mine, key=lambda each: mine[each]["kind"] == "bridge"):
        if name not in wanted or _remade(wanted[name], mine[name]):
            ip.append(f"link delete dev {name}")
    for name in sorted(wanted, key=lambda each: wanted[each]["kind"] != "bridge"):
        want = wanted[name]
        have = mine.get(name)
        if have is None or _remade(want, have):
            have = {}
            if want["kind"] == "bridge":
                ip.append(f"link add name {name} type bridge forward_delay 0 mcast_snooping 0")
            elif want["kind"] == "vxlan":
                ip.append(f"link add name {name} type vxlan id {want['id']} remote {want['remote']} dstport {PORT} nolearning")
            else:
                ip.append(f"tuntap add dev {name} mode tap user {ACCOUNT}")
            ip.append(f"link set dev {name} alias {MARK}")
        if have.get("mtu") != want["mtu"]:
            ip.append(f"link set dev {name} mtu {want['mtu']}")
        if have.get("master") != want.get("master"):
            ip.append(f"link set dev {name} master {want['master']}")
        if "role" in want and have.get("role") != ROLES[want["role"]]:
            flood, learning = ROLES[want["role"]]
            bridge.append(f"link set dev {name} flood {flood} mcast_flood {flood} bcast_flood {flood} learning {learning}")
        if not have.get("up"):
            ip.append(f"link set dev {name} up")
    return ip, bridge


def forwarding_steps(part: Part, there: t.AbstractSet[t.Tuple[str, str]]) -> t.List[str]:
    """Lines for ``bridge -batch``: the static entries of shortcuts. :param there: (device, MAC address) of the static entries now."""
    wanted = {(entry["device"], entry["mac"]) for entry in part["forwarding"]}
    gone = [f"fdb delete {mac} dev {device} master" for device, mac in sorted(there - wanted)]
    return gone + [f"fdb replace {mac} dev {device} master static" for device, mac in sorted(wanted - there)]


def rules(part: Part) -> str:
    """The nftables rules; nothing but their removal for an empty part."""
    text = "table bridge virtuoso_overlay\ndelete table bridge virtuoso_overlay\ntable inet virtuoso_overlay\ndelete table inet virtuoso_overlay\n"
    if not part["networks"]:
        return text + "table bridge virtuoso_traffic\ndelete table bridge virtuoso_traffic\n"
    guarded = [network["bridge"] for network in part["networks"] if not network.get("spoofing")]
    guests = ", ".join(f'"{guest["device"]}" . {guest["mac"]}' for guest in part["guests"])
    text += "table bridge virtuoso_overlay {\n  set guests {\n    type ifname . ether_addr\n"
    text += f"    elements = {{ {guests} }}\n" if guests else ""
    text += "  }\n  chain guard {\n    type filter hook prerouting priority -300; policy accept;\n"
    for bridge in guarded:
        # A tap that libvirt named itself is nobody's.
        text += f'    iifname "vnet*" meta ibrname "{bridge}" counter drop\n'
        text += f'    iifname "vm*" meta ibrname "{bridge}" iifname . ether saddr != @guests counter drop\n'
    text += "  }\n  chain own {\n    type filter hook input priority 0; policy accept;\n"
    # The host itself is on none of its networks.
    text += "".join(f'    meta ibrname "{network["bridge"]}" drop\n' for network in part["networks"]) + "  }\n}\n"
    text += "table inet virtuoso_overlay {\n  set peers {\n    type ipv4_addr\n"
    peers = ", ".join(peer for peer in part["peers"] if re.fullmatch(r"[0-9.]{7,15}", peer))
    text += f"    elements = {{ {peers} }}\n" if peers else ""
    text += f"  }}\n  chain input {{\n    type filter hook input priority filter - 10; policy accept;\n    udp dport {PORT} ip saddr != @peers counter drop\n  }}\n}}\n"
    # Made once and never replaced: its counters outlive changes of the rules.
    text += "table bridge virtuoso_traffic {\n  set matrix {\n    type ether_addr . ether_addr\n    size 65535\n    flags dynamic,timeout\n    timeout 1h\n    counter\n  }\n}\n"
    return text


COUNTING = """\
table bridge virtuoso_traffic {
  chain count {
    type filter hook forward priority 0; policy accept;
    iifname "vm*" update @matrix { ether saddr . ether daddr }
    iifname "vh*" update @matrix { ether saddr . ether daddr }
  }
}
"""


def ssh_files(part: Part, directory: str = DIRECTORY) -> t.Dict[str, str]:
    """The files of SSH links, by path: settings and known hosts of each client, and the keys that are admitted."""
    files: t.Dict[str, str] = {}
    admitted = []
    for link in part["links"]:
        if link["transport"] != "ssh":
            continue
        base = f"{directory}/ssh/{link['device']}"
        if link["end"] == "server":
            if link.get("client_key"):
                number = link["device"][3:]
                admitted.append(f'restrict,command="/bin/false",tunnel="{number}" {link["client_key"]} {link["device"]}')
            continue
        number = link["device"][3:]
        files[base + ".known_hosts"] = f"{link['device']} {link['host_key']}\n"
        settings = {
            "HostName": link["remote"], "Port": link["port"], "User": ACCOUNT, "HostKeyAlias": link["device"], "IdentityFile": base + ".key",
            "UserKnownHostsFile": base + ".known_hosts", "GlobalKnownHostsFile": "/dev/null", "StrictHostKeyChecking": "yes", "IdentitiesOnly": "yes",
            "BatchMode": "yes", "Tunnel": "ethernet", "TunnelDevice": f"{number}:{number}", "ExitOnForwardFailure": "yes", "ConnectTimeout": 3,
            "ServerAliveInterval": 2, "ServerAliveCountMax": 2, "Compression": "no", "Ciphers": "aes128-gcm@openssh.com", "HostKeyAlgorithms": "ssh-ed25519",
        }
        files[base + ".conf"] = "Host link\n" + "".join(f"  {key} {value}\n" for key, value in settings.items())
    if admitted:
        files[f"{directory}/authorized_keys"] = "\n".join(sorted(admitted)) + "\n"
    return files


def clients(part: Part) -> t.List[str]:
    """The devices whose SSH session begins here."""
    return sorted(link["device"] for link in part["links"] if link["transport"] == "ssh" and link["end"] == "client")


def run(argv: t.Sequence[str], text: str | None = None, *, must: bool = True) -> str:
    """Run a program, with its input."""
    source: t.Dict[str, t.Any] = {"input": text} if text is not None else {"stdin": subprocess.DEVNULL}
    done = subprocess.run(list(argv), capture_output=True, text=True, timeout=60, check=False, env={**os.environ, "LC_ALL": "C.UTF-8"}, **source)
    if done.returncode and must:
        said = (done.stderr or done.stdout).strip()[-600:]
        raise OverlayError("overlay_failed", f"{' '.join(argv)} failed: {said}. See that the kernel has what it needs, and run again")
    return "" if done.returncode else done.stdout


def observe() -> t.Dict[str, Link]:
    """All interfaces, in the terms of :func:`wanted_links`."""
    ports = {entry["ifname"]: entry for entry in json.loads(run(["bridge", "-json", "-details", "link", "show"]) or "[]")}
    found: t.Dict[str, Link] = {}
    for entry in json.loads(run(["ip", "-json", "-details", "link", "show"])):
        info = entry.get("linkinfo") or {}
        data = info.get("info_data") or {}
        port = ports.get(entry["ifname"]) or {}
        found[entry["ifname"]] = {
            "alias": entry.get("ifalias"), "kind": info.get("info_kind"), "mtu": entry.get("mtu"), "master": entry.get("master"),
            "up": "UP" in entry.get("flags", ()), "id": data.get("id"), "remote": data.get("remote") or data.get("remote6"),
            "role": tuple("on" if port.get(key) else "off" for key in ("flood", "learning")) if port else None,
        }
        if found[entry["ifname"]]["kind"] != "vxlan":
            found[entry["ifname"]].pop("id")
            found[entry["ifname"]].pop("remote")
    return found


def static_entries(devices: t.Container[str]) -> t.Set[t.Tuple[str, str]]:
    """(device, MAC address) of the bridges' static entries on these devices."""
    told = json.loads(run(["bridge", "-json", "fdb", "show"]) or "[]")
    return {(entry["ifname"], entry["mac"]) for entry in told if entry.get("state") == "static" and entry.get("master") and entry["ifname"] in devices}


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
        raise OverlayError("invalid_part", f"{path} can't be read: {exc}. Run the playbook virtuoso.grid.overlay, which writes it anew") from exc


def _rules_differ(text: str) -> bool:
    """Whether other rules are loaded than these, by the copy of what was loaded last, which doesn't outlive a boot."""
    return _read("/run/virtuoso-overlay.nft") != text or not run(["nft", "list", "table", "bridge", "virtuoso_overlay"], must=False)


def _stale_ssh(files: t.Mapping[str, str], directory: str) -> t.List[str]:
    there = [f"{directory}/ssh/{name}" for name in os.listdir(f"{directory}/ssh")] if os.path.isdir(f"{directory}/ssh") else []
    there += [f"{directory}/authorized_keys"] if os.path.exists(f"{directory}/authorized_keys") else []
    keys = {path[: -len(".conf")] + ".key" for path in files if path.endswith(".conf")}
    return sorted(path for path in there if path not in files and path not in keys and path.removesuffix(".pub") not in keys)


def differences(part: Part, directory: str = DIRECTORY) -> t.Dict[str, t.Any]:
    """What would be done: ``ip`` and ``bridge`` lines, ``rules`` (bool), ``files``, ``stale`` files, units to ``start``, ``restart`` and ``stop``.

    :raises OverlayError: ``foreign_interface``.
    """
    wanted, there = wanted_links(part), observe()
    others = foreign(wanted, there)
    if others:
        raise OverlayError("foreign_interface", f"{', '.join(others)}: somebody else's interface has the name that is needed. Rename or remove it, and run again")
    ip, bridge = steps(wanted, there)
    devices = {name for name, link in wanted.items() if link.get("role")}
    remade = {line.split()[-1] for line in ip if line.startswith("link delete")}
    bridge += forwarding_steps(part, static_entries(devices - remade))
    files = ssh_files(part, directory)
    changed = sorted(path for path, text in files.items() if _read(path) != text)
    mine = clients(part)
    running = set(re.findall(r"virtuoso-overlay-ssh@(tap\d+)\.service", run(["systemctl", "list-units", "--all", "--plain", "--no-legend", "virtuoso-overlay-ssh@*"])))
    enabled = {name for name in mine if run(["systemctl", "is-active", UNIT.format(name)], must=False).strip() == "active"}
    touched = {os.path.basename(path).split(".")[0] for path in changed}
    rules_text = rules(part)
    loaded = _rules_differ(rules_text) if part["networks"] else bool(_read("/run/virtuoso-overlay.nft"))
    return {
        "ip": ip, "bridge": bridge, "rules": loaded, "files": changed, "stale": _stale_ssh(files, directory),
        "start": [name for name in mine if name not in enabled], "restart": [name for name in mine if name in enabled and name in touched],
        "stop": sorted(running - set(mine)),
    }


def carry_out(part: Part, todo: t.Mapping[str, t.Any], directory: str = DIRECTORY) -> None:
    """Do what :func:`differences` said."""
    for name in todo["stop"]:
        run(["systemctl", "disable", "--now", UNIT.format(name)], must=False)
    files = ssh_files(part, directory)
    for path in todo["files"]:
        write(path, files[path])
    if todo["ip"]:
        run(["ip", "-batch", "-"], "".join(f"{line}\n" for line in todo["ip"]))
        for network in part["networks"]:
            # No address of the host's own on it, not even a link-local one.
            with contextlib.suppress(OSError), open(f"/proc/sys/net/ipv6/conf/{network['bridge']}/disable_ipv6", "w", encoding="ascii") as file:
                file.write("1")
    if todo["rules"]:
        text = rules(part)
        run(["nft", "-f", "-"], text)
        if part["networks"] and not run(["nft", "list", "chain", "bridge", "virtuoso_traffic", "count"], must=False):
            run(["nft", "-f", "-"], COUNTING)
        if part["networks"]:
            write("/run/virtuoso-overlay.nft", text)
        else:
            with contextlib.suppress(FileNotFoundError):
                os.unlink("/run/virtuoso-overlay.nft")
    if todo["bridge"]:
        run(["bridge", "-batch", "-"], "".join(f"{line}\n" for line in todo["bridge"]))
    for name in todo["start"]:
        run(["systemctl", "enable", "--now", "--quiet", UNIT.format(name)])
    for name in todo["restart"]:
        run(["systemctl", "restart", UNIT.format(name)])
    for path in todo["stale"]:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


@contextlib.contextmanager
def locked() -> t.Iterator[None]:
    """One at a time on this host: a second play waits for the first."""
    os.makedirs("/run/lock", exist_ok=True)
    with open("/run/lock/virtuoso-overlay", "w", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main(arguments: t.Sequence[str]) -> int:
    """Converge, or go back."""
    current, before = f"{DIRECTORY}/part.json", f"{DIRECTORY}/part.before.json"
    try:
        with locked():
            if arguments[0] == "rollback" and os.path.exists(before):
                os.rename(before, current)
            part = read_part(current)
            carry_out(part, differences(part))
    except OverlayError as exc:
        print(exc, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
