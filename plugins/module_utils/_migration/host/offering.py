# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of a machine that moves without running: given by the source over TLS to the target alone, taken by it.

The source has a transient unit for each machine: a program of QEMU's that gives the files as they are, read only, to
the one host whose certificate names the target. systemd ends it after a while if nobody else does.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import socket
import subprocess
import threading
import time
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._command import command
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._migration.records import File, Source
from ansible_collections.virtuoso.grid.plugins.module_utils._pki import TLS_DIR
from ansible_collections.virtuoso.grid.plugins.module_utils._progress import Progress
from ansible_collections.virtuoso.grid.plugins.module_utils._sockets import Socket, tcp_ports
from ansible_collections.virtuoso.grid.plugins.module_utils._wait import Pending, wait_for

_LOCK = "/run/virtuoso-offer.lock"
_LONGEST = "24h"
_START_TIMEOUT = 20
_PATIENCE = 5.0
_PLAIN = re.compile(r"/[A-Za-z0-9/._-]{1,200}", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,252}", re.ASCII)

_CONFINED = (
    # Files are root's or the hypervisor's user's, as the machine's last start has left them.
    "CapabilityBoundingSet=CAP_DAC_READ_SEARCH",
    "NoNewPrivileges=yes",
    "PrivateDevices=yes",
    "PrivateTmp=yes",
    "ProtectSystem=strict",
    "ProtectHome=yes",
    "ProtectControlGroups=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelTunables=yes",
    "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX",
    "RestrictNamespaces=yes",
    "LockPersonality=yes",
    "SystemCallFilter=@system-service",
    "Type=exec",
    f"RuntimeMaxSec={_LONGEST}",
)


class Offer(t.TypedDict):
    """What the target needs to take files."""

    port: int
    files: t.Dict[str, File]


def unit(uuid: str) -> str:
    """The name of a machine's unit."""
    return f"virtuoso-offer-{uuid}.service"


def identities(name: str) -> list[str]:
    """What a host's certificate calls it (the role ``provider`` makes the certificates): in their order, and in that of
    RFC 4514."""
    words = ["O=virtuoso.grid", "OU=providers", f"CN={name}"]
    return [",".join(words), ",".join(reversed(words))]


def arguments(files: t.Mapping[str, str], port: int, target: str) -> list[str]:
    """The program that gives the files (pure). :param files: paths by the names under which they are given."""
    rules = [{"match": each, "policy": "allow", "format": "exact"} for each in identities(target)]
    argv = [
        "/usr/bin/qemu-storage-daemon",
        "--object",
        f"tls-creds-x509,id=tls,endpoint=server,verify-peer=yes,dir={TLS_DIR}",
        "--object",
        json.dumps({"qom-type": "authz-list", "id": "target", "policy": "deny", "rules": rules}),
    ]
    for number, path in enumerate(files.values()):
        argv += [
            "--blockdev",
            f"driver=raw,node-name=file{number},read-only=on,file.driver=file,file.locking=off"
            f",file.filename={path.replace(',', ',,')}",
        ]
    argv += [
        "--nbd-server",
        f"addr.type=inet,addr.host=0.0.0.0,addr.port={port},tls-creds=tls,tls-authz=target,max-connections=0",
    ]
    for number, name in enumerate(files):
        argv += ["--export", f"type=nbd,id=export{number},node-name=file{number},name={name},writable=off"]
    return argv


def _port(ports: range) -> int:
    taken = {number for number, each in tcp_ports().items() if each.listens}
    for port in ports:
        if port not in taken:
            return port
    raise GridError(
        "no_port",
        f"all ports from {ports[0]} to {ports[-1]} are taken",
        remedy="Wait until other moves are over, or give a wider range and admit it in the firewall"
        " (virtuoso_provider_ports)",
    )


def offer(uuid: str, files: t.Mapping[str, str], target: str, ports: range) -> Offer:
    """Give the files to the target; what it needs to take them.

    :raises GridError: ``no_port``, ``offer_failed``, ``invalid_path``.
    """
    if not _NAME.fullmatch(target) or not all(_PLAIN.fullmatch(path) for path in files.values()):
        raise GridError(
            "invalid_path",
            "a name has characters that a unit's settings can't have",
            remedy="Give the depot a plain path",
        )
    withdraw(uuid)
    sizes: dict[str, File] = {
        name: {"size": os.path.getsize(path), "allocated": os.stat(path).st_blocks * 512}
        for name, path in files.items()
    }
    with open(_LOCK, "a", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        port = _port(ports)
        argv = [
            "systemd-run",
            "--quiet",
            "--collect",
            f"--unit={unit(uuid)}",
            f"--description=Machine {uuid} on its way to {target}",
        ]
        argv += [*(f"--property={each}" for each in _CONFINED), *arguments(files, port, target)]
        command(argv, timeout=60, code="offer_failed", remedy="See what systemd said: journalctl -u 'virtuoso-offer-*'")

        def probe() -> None:
            if tcp_ports().get(port, Socket(False, 0)).listens:
                return
            if command(["systemctl", "is-active", unit(uuid)], timeout=20, accept=range(256)).strip() not in (
                "active",
                "activating",
            ):
                said = command(
                    ["journalctl", "--no-pager", "-o", "cat", "-n", "1", "-t", "qemu-storage-daemon", "-u", unit(uuid)],
                    timeout=20,
                    accept=range(256),
                )
                raise GridError(
                    "offer_failed", f"the machine's files can't be given: {said.strip()[-400:]}", remedy="Run again"
                )
            raise Pending("nobody listens yet")

        wait_for(probe, _START_TIMEOUT, what="the offer", interval=0.05)
    return {"port": port, "files": sizes}


def withdraw(uuid: str) -> None:
    """Give the files no more."""
    if os.path.isdir("/run/systemd/system"):
        command(["systemctl", "stop", unit(uuid)], timeout=60, accept=range(256))


def _stalled(seconds: float, source: str) -> GridError:
    return GridError(
        "link_lost",
        f"nothing has come from {source} for {seconds:g} s",
        remedy="See that the two hosts reach each other, then run again",
    )


def require_way(source: Source, patience: float = _PATIENCE) -> None:
    """See that the source's offer can be reached at all; a packet filter that says nothing would be waited for until
    the move is given up.

    :raises GridError: ``source_unreachable``: there may be another way, through the controller.
    """
    try:
        socket.create_connection((source["host"], int(source["port"])), timeout=patience).close()
    except OSError as exc:
        raise GridError(
            "source_unreachable",
            f"{source['host']} can't be reached from here on port {source['port']}: {exc}",
            remedy="See that the hosts reach each other on the ports of virtuoso_provider_ports, then run again",
        ) from exc


def take(
    source: Source, name: str, path: str, about: File, progress: Progress, *, bandwidth: int | None, stall: float
) -> None:
    """Get one file of an offer.

    :param source: ``host``, ``port``, and where the way leads through another place ``key_name``, the name in the
        source's certificate.
    :param about: its ``size`` and ``allocated`` bytes.
    :raises GridError: ``source_unreachable``, ``link_lost``, ``transfer_failed``.
    """
    image = "driver=raw,file.driver=nbd,file.server.type=inet"
    image += f",file.server.host={source['host']},file.server.port={int(source['port'])}"
    image += f",file.export={name},file.tls-creds=tls"
    if source.get("key_name"):
        image += f",file.tls-hostname={source['key_name']}"
    argv = ["qemu-img", "convert", "-q", "-O", "raw", "-W", "-m", "8", *(["-r", str(bandwidth)] if bandwidth else [])]
    argv += [
        "--object",
        f"tls-creds-x509,id=tls,endpoint=client,verify-peer=yes,dir={TLS_DIR}",
        "--image-opts",
        image,
        path,
    ]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        said = b""

        def listen() -> None:
            nonlocal said
            said = t.cast(t.BinaryIO, process.stderr).read()

        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        try:
            _watch(process, path, about, progress, stall, str(source["host"]))
        finally:
            if process.poll() is None:
                process.kill()
            listener.join(5)
    if process.returncode:
        last = said.decode("utf-8", "replace").strip()[-400:]
        code = "source_unreachable" if "Failed to connect" in last or "onnection refused" in last else "transfer_failed"
        raise GridError(
            code,
            f"{name} didn't come from {source['host']}: {last}",
            remedy="See that the hosts reach each other on the ports of virtuoso_provider_ports, then run again",
        )
    if not about["size"] <= os.path.getsize(path) < about["size"] + 512:
        raise GridError(
            "transfer_failed",
            f"{name} came with {os.path.getsize(path)} bytes instead of {about['size']}",
            remedy="Run again",
        )
    # It was counted in sectors; the rest of the last one is none of the file's.
    os.truncate(path, about["size"])
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.chmod(path, 0o600)


def _watch(
    process: subprocess.Popen[bytes], path: str, about: File, progress: Progress, stall: float, source: str
) -> None:
    """Return when the program ends. :raises GridError: ``link_lost`` where nothing comes any more."""
    seen, when = -1, time.monotonic()
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.2)
            return
        try:
            done = os.stat(path).st_blocks * 512
        except OSError:
            done = 0
        if done != seen:
            seen, when = done, time.monotonic()
            progress.bytes("receive", min(done, about["allocated"]), about["allocated"])
        elif time.monotonic() - when > stall:
            raise _stalled(stall, source)
