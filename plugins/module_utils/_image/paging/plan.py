# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans exports of layers to machines that page: their ports, the programs' arguments and confinement (pure).

An export is a transient unit of systemd that runs a program of QEMU. There are two kinds. A *source* exports a layer
that is on the host. A *pager* runs on the provider: it reads from a source and keeps what was read in a cache file.
So each block comes to the provider once for all machines there, and no machine needs to know the source.
"""

from __future__ import annotations

import dataclasses
import re
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.export_names import (
    CACHE,
    CACHE_FILE,
    ORIGIN,
    PAGER,
    QMP,
    SOURCE,
    unit_name,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.header import MAX_VIRTUAL_SIZE
from ansible_collections.virtuoso.grid.plugins.module_utils._image.transfer.plan import REACHED_BY, Source, parse_source
from ansible_collections.virtuoso.grid.plugins.module_utils._names import check, shorten

UNITS = "virtuoso-export-*.service"

RECONNECT = 10
"""Seconds that reads wait for a pager's lost source; then they fail, and the guest is paused."""

_UNIT = re.compile(r"virtuoso-export-(source|pager)-([0-9a-f]{64})\.service", re.ASCII)
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?|[0-9A-Fa-f:.]{2,45}", re.ASCII)
_UPSTREAM = re.compile(r"(.+):([0-9]{1,5})", re.ASCII)
_CREDENTIALS = ("ca-cert.pem", "server-cert.pem", "server-key.pem")
_CLIENT_CREDENTIALS = ("client-cert.pem", "client-key.pem")
_PARAMETERS = "dh-params.pem"
"""Optional: spares QEMU the search for a prime at each start. Hosts of an older set-up don't have it."""

# QEMU writes an answer in pieces, and TCP delays a small last piece until those before are acknowledged: 40 ms for each
# read. Connections inherit TCP_NODELAY from the listening socket, so the program is given such a socket (in the way of
# systemd, see sd_listen_fds(3)).
_SOCKET = 3
_LISTEN = (
    "import os, socket, sys; s = socket.create_server(('0.0.0.0', int(sys.argv[1])), backlog=64); "
    "s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1); "
    f"os.set_inheritable({_SOCKET}, True) if s.fileno() == {_SOCKET} else os.dup2(s.fileno(), {_SOCKET}); "
    "os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid())); os.execv(sys.argv[2], sys.argv[2:])"
)

_CONFINED = (
    "DynamicUser=yes",
    "SupplementaryGroups=virtuoso",
    "RuntimeDirectoryMode=0700",
    "CapabilityBoundingSet=",
    "NoNewPrivileges=yes",
    "PrivateDevices=yes",
    "PrivateTmp=yes",
    "ProtectSystem=strict",
    "ProtectHome=read-only",
    "ProtectControlGroups=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelTunables=yes",
    "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX",
    "RestrictNamespaces=yes",
    "LockPersonality=yes",
    "MemoryDenyWriteExecute=yes",
    "SystemCallFilter=@system-service",
    "Type=exec",
    "Restart=on-failure",
    "RestartSec=1",
)


@dataclasses.dataclass(frozen=True)
class Export:
    """An export as it should be.

    The other fields are for pagers. ``upstream``: ``host:port`` of the source. ``size``: bytes of the disk. ``ahead``:
    the host from which to fetch at once what a boot reads.
    """

    digest: str
    upstream: str | None = None
    size: int = 0
    ahead: Source | None = None

    @property
    def kind(self) -> str:
        """SOURCE or PAGER."""
        return SOURCE if self.upstream is None else PAGER

    @property
    def unit(self) -> str:
        """The name of its systemd unit."""
        return unit_name(self.kind, self.digest)


@dataclasses.dataclass(frozen=True)
class Unit:
    """An export that exists. ``active``: its program runs or is about to be restarted. ``upstream``: ``host:port``."""

    kind: str
    digest: str
    active: bool
    port: int | None
    upstream: str | None


def parse_export(entry: object) -> Export:
    """One item of the module's ``exports``. :raises GridError: ``invalid_export``, ``invalid_digest``."""
    if not isinstance(entry, t.Mapping) or set(entry) - {"digest", "upstream", "ahead", "name"}:
        raise GridError(
            "invalid_export", f"{shorten(entry)} is not an export", remedy="Give digest and, for a pager, upstream"
        )
    digest = check("digest", entry.get("digest"))
    upstream = entry.get("upstream")
    if upstream is None:
        return Export(digest)
    host, port, size = (
        upstream.get(key) if isinstance(upstream, t.Mapping) else None for key in ("host", "port", "virtual_size")
    )
    good = isinstance(host, str) and _HOST.fullmatch(host) and _whole(port, 65535) and _whole(size, MAX_VIRTUAL_SIZE)
    if not good or int(str(size)) % 512:
        raise GridError(
            "invalid_export",
            f"{shorten(upstream)} is not an upstream",
            remedy="Give host, port and virtual_size as this module returned them on the source",
        )
    return Export(digest, f"{host}:{port}", int(str(size)), _source(entry.get("ahead")))


def _source(value: object) -> Source | None:
    if value is None:
        return None
    if not isinstance(value, t.Mapping) or set(value) - set(REACHED_BY) - {"host", "path"}:
        raise GridError(
            "invalid_export", f"{shorten(value)} is not a source", remedy="Give what image_transfer takes as its source"
        )
    wanted = {**REACHED_BY, **value}
    port = int(str(wanted["port"])) if _whole(wanted["port"], 65535) else 0
    return parse_source({**wanted, "host": wanted.get("host"), "port": port})


def _whole(value: object, most: int) -> bool:
    """Whether the value is a whole number from 1 to ``most``, or its text."""
    text = str(value)
    return not isinstance(value, bool) and text.isascii() and text.isdigit() and 0 < int(text) <= most


def choose_port(export: Export, ports: range, taken: t.Container[int]) -> int:
    """Choose a free port. A layer gets the same port whenever it is free, so that a machine whose source was lost finds
    it there again.

    :raises GridError: ``no_port``.
    """
    begin = int(export.digest[len("sha256:") :][:8], 16) + (0 if export.kind == SOURCE else 1)
    for step in range(len(ports)):
        port = ports[(begin + step) % len(ports)]
        if port not in taken:
            return port
    raise GridError(
        "no_port",
        f"all ports from {ports[0]} to {ports[-1]} are taken",
        remedy="Wait until other machines have their images, or give a wider range and admit it in the firewall "
        "(virtuoso_provider_ports)",
    )


def decide(export: Export, unit: Unit | None, listens: bool) -> list[str]:
    """The action that the export needs: none, ``export``, or ``replace`` where a pager has another source.

    :param listens: whether a program listens on the unit's port.
    """
    if unit is None or not unit.active or unit.port is None or not listens:
        return ["export"]
    return [] if unit.upstream == export.upstream else ["replace"]


def parse_units(text: str) -> dict[str, Unit]:
    """Exports by unit name, from the output of ``systemctl show -p Id -p ActiveState -p Environment``."""
    found = {}
    for block in text.split("\n\n"):
        fields = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        name = _UNIT.fullmatch(fields.get("Id", ""))
        if name is None or fields.get("ActiveState") in ("inactive", None):
            continue
        environment = dict(word.split("=", 1) for word in fields.get("Environment", "").split() if "=" in word)
        port = environment.get("VIRTUOSO_PORT", "")
        found[fields["Id"]] = Unit(
            name[1],
            "sha256:" + name[2],
            fields.get("ActiveState") in ("active", "activating", "reloading"),
            int(port) if port.isdigit() else None,
            environment.get("VIRTUOSO_UPSTREAM"),
        )
    return found


def run_argv(export: Export, port: int, tls_dir: str, layer: str, cache: str) -> list[str]:
    """The arguments of systemd-run that start an export.

    The program runs as a user that exists only for it, and can read only the layers and copies of the host's
    certificates. They are copied because systemd's LoadCredential doesn't work in every container.

    :param layer: the layer's file, for a source.
    :param cache: a pager's cache file, in a directory of its own.
    """
    names = [*_CREDENTIALS, *(_CLIENT_CREDENTIALS if export.kind == PAGER else ())]
    files = " ".join(f"{tls_dir}/{name}" for name in names)
    own = cache.rpartition("/")[0] if export.kind == PAGER else ""
    properties = [
        *_CONFINED,
        f"RuntimeDirectory={export.unit[: -len('.service')]}",
        *([f"ReadWritePaths={own}"] if own else []),
        "ExecStartPre=+/usr/bin/install -m 0400 -t ${RUNTIME_DIRECTORY} " + files,
        f"ExecStartPre=-+/usr/bin/install -m 0400 -t ${{RUNTIME_DIRECTORY}} {tls_dir}/{_PARAMETERS}",
        "ExecStartPre=+/usr/bin/chown -R --reference=${RUNTIME_DIRECTORY} ${RUNTIME_DIRECTORY}",
        # Not the other files beside the cache: they are linked from the store
        *([f"ExecStartPre=+/usr/bin/chown --reference=${{RUNTIME_DIRECTORY}} {own} {cache}"] if own else []),
    ]
    return [
        "systemd-run",
        "--quiet",
        "--collect",
        f"--unit={export.unit}",
        f"--description=Layer {export.digest} for machines that page from it ({export.kind})",
        f"--setenv=VIRTUOSO_PORT={port}",
        *([f"--setenv=VIRTUOSO_UPSTREAM={export.upstream}"] if export.upstream else []),
        *(f"--property={each}" for each in properties),
        *("/usr/bin/python3", "-c", _LISTEN, str(port)),
        *(_source_argv(export, layer) if export.kind == SOURCE else _pager_argv(export, cache)),
    ]


def _credentials(name: str, endpoint: str) -> list[str]:
    # systemd replaces the variable.
    return ["--object", f"tls-creds-x509,id={name},endpoint={endpoint},verify-peer=yes,dir=${{RUNTIME_DIRECTORY}}"]


def _source_argv(export: Export, layer: str) -> list[str]:
    return [
        "/usr/bin/qemu-nbd",
        "--read-only",
        "--persistent",
        "--shared=0",
        f"--export-name={export.digest}",
        "--format=qcow2",
        *_credentials("tls", "server"),
        "--tls-creds=tls",
        layer,
    ]


def _pager_argv(export: Export, cache: str) -> list[str]:
    found = _UPSTREAM.fullmatch(export.upstream or "")
    host, upstream_port = (found[1], found[2]) if found else ("", "")
    source = (
        f"driver=nbd,node-name={ORIGIN},read-only=on,server.type=inet,server.host={host},server.port={upstream_port}"
        f",export={export.digest},tls-creds=client,reconnect-delay={RECONNECT}"
    )
    return [
        "/usr/bin/qemu-storage-daemon",
        *_credentials("server", "server"),
        *_credentials("client", "client"),
        "--blockdev",
        source,
        "--chardev",
        f"socket,id=monitor,path=${{RUNTIME_DIRECTORY}}/{QMP},server=on,wait=off",
        "--monitor",
        "chardev=monitor",
        "--blockdev",
        f"driver=file,node-name={CACHE_FILE},filename={cache.replace(',', ',,')}",
        "--blockdev",
        f"driver=qcow2,node-name={CACHE},file={CACHE_FILE},backing={ORIGIN}",
        "--blockdev",
        f"driver=copy-on-read,node-name=pages,file={CACHE}",
        "--nbd-server",
        f"addr.type=fd,addr.str={_SOCKET},tls-creds=server,max-connections=0",
        "--export",
        f"type=nbd,id=pages,node-name=pages,name={export.digest},writable=off",
    ]
