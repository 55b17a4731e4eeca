# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The live move of one machine, driven from the source.

The two QEMUs speak to each other over TLS with the hosts' own certificates; libvirt on the target is reached by a
socket that the controller's SSH connections make for this one run, so no provider has standing power over another. Only
what the overlay has is copied (the layers are there).
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
import typing as t
import xml.etree.ElementTree as ET

from ansible_collections.virtuoso.grid.plugins.module_utils._command import command
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor import domain_xml
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.api import Connect, Domain, Values
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.connection import libvirt
from ansible_collections.virtuoso.grid.plugins.module_utils._migration.records import Stats
from ansible_collections.virtuoso.grid.plugins.module_utils._progress import Progress
from ansible_collections.virtuoso.grid.plugins.module_utils._wait import Pending, wait_for

_POLL = 0.25
_MIB = 2**20
_PORTS = (49152, 49215)
"""libvirt's own range, which the firewall of the role provider admits."""
_PATIENCE = 5.0
_PASSES = 4
"""How often all memory is sent before it is said that this leads to no end."""


class Limits(t.NamedTuple):
    """What a move is to keep to."""

    address: str
    """of the target, as the source reaches it"""
    bandwidth: t.Optional[int]
    downtime: t.Optional[int]
    """milliseconds"""
    postcopy: bool
    postcopy_after: float
    stall: float


def parameters(limits: Limits, live: ET.Element, persistent: ET.Element) -> dict[str, object]:
    """libvirt's parameters of the move (pure).
    :param live: the domain's tree at the target,
    :param persistent: and at its next start."""
    host = f"[{limits.address}]" if ":" in limits.address else limits.address
    values: dict[str, object] = {
        "migrate_uri": f"tcp://{host}",
        "destination_xml": domain_xml.to_text(live),
        "persistent_xml": domain_xml.to_text(persistent),
        "migrate_disks": [domain_xml.ROOT_DISK],
    }
    if limits.bandwidth:
        values["bandwidth"] = max(1, limits.bandwidth // _MIB)
    return values


def _flags(limits: Limits) -> int:
    flags = (
        libvirt.VIR_MIGRATE_LIVE
        | libvirt.VIR_MIGRATE_PERSIST_DEST
        | libvirt.VIR_MIGRATE_NON_SHARED_INC
        | libvirt.VIR_MIGRATE_TLS
        | libvirt.VIR_MIGRATE_ABORT_ON_ERROR
    )
    return flags | (libvirt.VIR_MIGRATE_POSTCOPY if limits.postcopy else libvirt.VIR_MIGRATE_AUTO_CONVERGE)


class Watch:
    """Looks at a move while it is under way: tells how far it is, ends one that stands still, switches one that doesn't
    converge.

    One thread asks libvirt, the other looks at the time, because where QEMU waits for the network libvirt doesn't
    answer either.
    """

    def __init__(self, domain: Domain, limits: Limits, progress: Progress) -> None:
        self.domain = domain
        self.limits = limits
        self.progress = progress
        self.stalled = False
        self.switched = False
        self._moved = self._begin = time.monotonic()
        self._last: object = None
        self._over = threading.Event()
        self._threads = [threading.Thread(target=each, daemon=True) for each in (self._ask, self._guard)]

    def __enter__(self) -> Watch:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *dummy: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(5)

    def _ask(self) -> None:
        while not self._over.wait(_POLL):
            try:
                stats = self.domain.jobStats(0)
            except libvirt.libvirtError:
                continue
            if stats.get("type") not in (None, libvirt.VIR_DOMAIN_JOB_NONE):
                self._see(stats)

    def _see(self, stats: Values) -> None:
        done = stats.get("data_processed", 0)
        if done != self._last:
            self._last, self._moved = done, time.monotonic()
            self.progress.bytes("migrate", done, stats.get("data_total") or None)
        if diverges(stats, time.monotonic() - self._begin, self.limits) and not self.switched:
            self.switched = True
            self.progress.stage("post-copy")
            with contextlib.suppress(libvirt.libvirtError):
                self.domain.migrateStartPostCopy(0)

    def _guard(self) -> None:
        while not self._over.wait(_POLL):
            # After the switch to post-copy there is no way back.
            if time.monotonic() - self._moved > self.limits.stall and not self.switched:
                self.stalled = True
                hang_up(self.domain, self.limits.address)
                with contextlib.suppress(libvirt.libvirtError):
                    self.domain.abortJob()
                self._moved = time.monotonic()


def local_ports(text: str, pid: int) -> list[int]:
    """The local ports of a process's connections, of what ``ss -H -t -n -p`` says (pure)."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 5 and f"pid={pid}," in line:
            found.append(int(words[3].rpartition(":")[2]))
    return found


def hang_up(domain: Domain, address: str) -> None:
    """End the connections of a machine's QEMU to the target. While QEMU waits for an answer there, it can't be told to
    end the move: and its guest waits as well, for its network and its disk."""
    with contextlib.suppress(OSError, ValueError, GridError, libvirt.libvirtError):
        with open(f"/run/libvirt/qemu/{domain.name()}.pid", encoding="ascii") as file:
            pid = int(file.read())
        wanted = ["dst", address, "dport", ">=", f":{_PORTS[0]}", "dport", "<=", f":{_PORTS[1]}"]
        for port in local_ports(command(["ss", "-H", "-t", "-n", "-p", *wanted], timeout=10), pid):
            command(["ss", "-K", "-H", "-t", "-n", "dst", address, "sport", "=", f":{port}"], timeout=10)


def require_way(address: str, port: int = _PORTS[1], patience: float = _PATIENCE) -> None:
    """See that the target answers at all: libvirt would wait two minutes for a connection that nobody refuses, and
    can't be called back from that.

    :param port: one of those that QEMU listens on for a machine that comes; that nobody does yet is an answer as well.
    :raises GridError: ``target_unreachable``.
    """
    try:
        socket.create_connection((address, port), timeout=patience).close()
    except ConnectionRefusedError:
        pass
    except OSError as exc:
        raise GridError(
            "target_unreachable",
            f"{address} can't be reached from here on the ports of live moves (port {port}: {exc})",
            remedy="See that the two hosts reach each other, then run again; or move it hibernated:"
            " its files can go through the controller",
            copy="source",
        ) from exc


def diverges(stats: Values, seconds: float, limits: Limits) -> bool:
    """Whether the guest changes its memory as fast as it is sent, so that only post-copy brings it over (pure)."""
    return bool(limits.postcopy and seconds > limits.postcopy_after and stats.get("memory_iteration", 0) >= _PASSES)


def leftovers(nodes: t.Sequence[Values], jobs: t.Sequence[Values]) -> tuple[list[str], list[str]]:
    """What an earlier move has left in QEMU when libvirt was killed under way (pure): block jobs to end, then nodes to
    remove, in their order.

    :param nodes: QEMU's ``query-named-block-nodes``. :param jobs: its ``query-block-jobs``.
    """
    names = [str(node.get("node-name")) for node in nodes]
    stale = [
        name
        for kind in ("-format", "-storage")
        for name in names
        if name.startswith("migration-") and name.endswith(kind)
    ]
    return [str(job["device"]) for job in jobs if job.get("type") == "mirror"], stale


def sweep(domain: Domain) -> bool:
    """Remove what an earlier move has left in QEMU, which libvirt doesn't know any more when it was started anew;
    whether there was anything."""
    import libvirt_qemu

    def ask(verb: str, **arguments: object) -> t.Sequence[Values]:
        said = libvirt_qemu.qemuMonitorCommand(domain, json.dumps({"execute": verb, "arguments": arguments}), 0)
        answer = json.loads(said).get("return")
        return answer if isinstance(answer, list) else []

    jobs, nodes = leftovers(ask("query-named-block-nodes", flat=True), ask("query-block-jobs"))
    if not nodes:
        return False
    for job in jobs:
        ask("block-job-cancel", device=job, force=True)

    def over() -> None:
        if leftovers([], ask("query-block-jobs"))[0]:
            raise Pending("a block job is still there")

    wait_for(over, _PATIENCE, what="the end of an earlier move's block jobs", interval=0.1)
    for node in nodes:
        ask("blockdev-del", **{"node-name": node})
    return True


def _is_leftover(exc: Exception) -> bool:
    return "migration-" in str(exc) and "node-name" in str(exc)


def completed(domain: Domain) -> Stats:
    """What libvirt says of the move that is over: milliseconds of silence, bytes, passes."""
    try:
        stats = domain.jobStats(libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED)
    except libvirt.libvirtError:
        return {}
    return {
        "downtime": stats.get("downtime"),
        "bytes": stats.get("data_processed"),
        "memory_bytes": stats.get("memory_processed"),
        "disk_bytes": stats.get("disk_processed"),
        "passes": stats.get("memory_iteration"),
        "setup": stats.get("setup_time"),
    }


def migrate(
    domain: Domain, target: Connect, limits: Limits, live: ET.Element, persistent: ET.Element, progress: Progress
) -> Stats:
    """Move a running machine; what libvirt says of it afterwards.

    :param target: the connection to the target's libvirt.
    :raises GridError: ``link_lost``; libvirt's own errors pass.
    """
    progress.stage("migrate")
    if limits.downtime:
        with contextlib.suppress(libvirt.libvirtError):
            domain.migrateSetMaxDowntime(limits.downtime, 0)
    try:
        return _migrate(domain, target, limits, live, persistent, progress)
    except libvirt.libvirtError as exc:
        if not _is_leftover(exc) or not sweep(domain):
            raise
    return _migrate(domain, target, limits, live, persistent, progress)


def _migrate(
    domain: Domain, target: Connect, limits: Limits, live: ET.Element, persistent: ET.Element, progress: Progress
) -> Stats:
    with Watch(domain, limits, progress) as watch:
        try:
            domain.migrate3(target, parameters(limits, live, persistent), _flags(limits))
        except libvirt.libvirtError as exc:
            if watch.stalled:
                raise GridError(
                    "link_lost",
                    f"nothing got through to {limits.address} for {limits.stall:g} s; the machine goes on where it was",
                    remedy="See that the two hosts reach each other, then run again",
                ) from exc
            raise
    return {**completed(domain), "postcopy": watch.switched}
