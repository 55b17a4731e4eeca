# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine's copy at the target: room made for it, its files taken, defined, or thrown away."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import typing as t
import xml.etree.ElementTree as ET

from ansible_collections.virtuoso.grid.plugins.module_utils._command import command
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor import domain_xml, metadata
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.api import Connect, Domain
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.connection import libvirt, translated
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.files import disk
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.state import observe
from ansible_collections.virtuoso.grid.plugins.module_utils._migration.host import looking, marking, offering
from ansible_collections.virtuoso.grid.plugins.module_utils._migration.records import Entry, Source
from ansible_collections.virtuoso.grid.plugins.module_utils._progress import Progress
from ansible_collections.virtuoso.grid.plugins.module_utils._wait import Pending, wait_for

_REFUSED = "/run/virtuoso-refused"
"""Attempts that were undone: what still comes of one of them comes too late."""

_GONE_TIMEOUT = 10


def _note(directory: str, told: t.Mapping[str, object], complete: bool) -> None:
    data = json.dumps({**told, "complete": complete}, sort_keys=True).encode()
    disk.write_whole(os.path.join(directory, "incoming.json"), data)


def _told(entry: Entry) -> dict[str, object]:
    """What the note says. A machine that sleeps only for its journey is to be woken as what it ``was``."""
    was = {"was": "paused" if entry.get("was") == "paused" else "running"} if entry.get("start") else {}
    identity = {"generation": entry["generation"], "source": entry["source"], "attempt": entry["attempt"]}
    return {**identity, **was}


def free(conn: Connect, depot: disk.Depot, uuid: str, name: str) -> None:
    """See that nothing of the machine is here that anybody could miss.

    :raises GridError: ``foreign_domain``, ``machine_busy``, ``several_copies``, ``disk_conflict``.
    """
    domain, dummy = observe.find_domain(conn, uuid, name)
    if domain is not None:
        if looking.arriving(domain):
            raise GridError(
                "machine_busy", "another run is just bringing this machine here", remedy="Run again when it has ended"
            )
        raise GridError(
            "several_copies",
            "a copy of the machine is here already",
            remedy="Run virtuoso.grid.refresh, which tells which copy is the true one",
        )
    there = os.path.isdir(depot.machine(uuid)) and not os.path.exists(depot.incoming(uuid))
    if there and any(name.startswith("disk") for name in os.listdir(depot.machine(uuid))):
        raise GridError(
            "disk_conflict",
            f"a disk of this machine is here without its domain: {depot.machine(uuid)}",
            remedy="Look at it, and move it away if nobody needs it",
        )


def prepare(depot: disk.Depot, overlays: disk.Overlays, entry: Entry) -> None:
    """An empty overlay on the machine's layers and its seed, marked as nobody's yet."""
    uuid = entry["uuid"]
    layer = depot.layer(entry["layers"][0])

    def fill(staging: str) -> None:
        _note(staging, _told(entry), False)
        overlays.write(os.path.join(staging, "disk.qcow2"), layer, int(entry["disk"] or 0))
        seed = entry.get("seed")
        if seed:
            disk.write_whole(os.path.join(staging, "seed.iso"), looking.seed_bytes(seed))

    with translated("make room for the machine"):
        disk.make(depot, uuid, fill)


def refuse(attempt: str) -> None:
    """Nothing that still comes of this attempt is to be used."""
    os.makedirs(_REFUSED, mode=0o700, exist_ok=True)
    with open(os.path.join(_REFUSED, attempt), "w", encoding="ascii"):
        pass


def _require_welcome(attempt: str) -> None:
    if os.path.exists(os.path.join(_REFUSED, attempt)):
        raise GridError("move_undone", "another run has undone this move meanwhile", remedy="Run again")


def take(
    depot: disk.Depot, entry: Entry, source: Source, progress: Progress, *, bandwidth: int | None, stall: float
) -> None:
    """Get the machine's files; they are here under their names afterwards, or none of them is.

    :param entry: with ``files``, name to size, and ``directory``, the files' at the source.
    """
    uuid = entry["uuid"]
    _require_welcome(entry["attempt"])
    offering.require_way(source)

    def fill(staging: str) -> None:
        for name, about in entry["files"].items():
            offering.take(source, name, os.path.join(staging, name), about, progress, bandwidth=bandwidth, stall=stall)
        path = os.path.join(staging, "disk.qcow2")
        layer = depot.layer(entry["layers"][0])
        if t.cast(disk.Disk, disk.read_qcow2(path)).backing != layer:
            disk.rebase(path, layer)
        command(
            ["qemu-img", "check", "-q", "-f", "qcow2", path], timeout=600, code="transfer_failed", remedy="Run again"
        )
        _note(staging, _told(entry), True)

    with translated("take the machine's files"):
        disk.make(depot, uuid, fill)


def define(conn: Connect, depot: disk.Depot, uuid: str, attempt: str | None) -> Domain:
    """The machine's domain from what came of it; it is on its way until :func:`finish`.

    :raises GridError: ``move_undone``, ``incoming_invalid``.
    """
    if attempt is not None:
        _require_welcome(attempt)
    path = os.path.join(depot.machine(uuid), marking.FILE)
    try:
        with open(path, encoding="utf-8") as file:
            tree = domain_xml.parse(file.read())
    except (OSError, ValueError, ET.ParseError) as exc:
        raise GridError(
            "incoming_invalid", f"what came of the machine has no definition: {path}", remedy="Run again"
        ) from exc
    values = metadata.read(tree)
    if values is None or values["uuid"] != uuid or values["moving"]:
        raise GridError(
            "incoming_invalid", f"what came has the definition of something else: {path}", remedy="Run again"
        )
    with translated("define the machine"):
        return conn.defineXML(domain_xml.to_text(tree))


def undo(conn: Connect, depot: disk.Depot, uuid: str, attempt: str) -> None:
    """Throw away what was taken and perhaps defined: the source goes on with its own copy, or the same is tried another
    way.

    :raises GridError: ``machine_here`` where the guest was let go on here, so that it may have done something.
    """
    told = looking.incoming(depot, uuid)
    if told and told["attempt"] != attempt:
        # Another run has undone this one, and is at it anew.
        return
    domain, dummy = observe.find_domain(conn, uuid, None)
    if domain is not None and not domain.isActive() and told:
        with translated("undo the definition of the machine"):
            domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_NVRAM)
    discard(conn, depot, uuid, None)


def finish(depot: disk.Depot, uuid: str, domain: Domain, autostart: bool) -> None:
    """The copy here is the true one; nothing tells any more that it is on its way."""
    with translated("have the machine start with its host"):
        if autostart and not domain.autostart():
            domain.setAutostart(1)
    for path in (depot.incoming(uuid), os.path.join(depot.machine(uuid), marking.FILE)):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def discard(conn: Connect, depot: disk.Depot, uuid: str, attempt: str | None) -> bool:
    """Throw away what came of a copy; whether there was anything.

    :raises GridError: ``machine_here`` where it is a machine already.
    """
    if attempt:
        refuse(attempt)
    domain, dummy = observe.find_domain(conn, uuid, None)
    if domain is not None:
        if not looking.arriving(domain):
            raise GridError("machine_here", "the machine is here by now, and is not thrown away", remedy="Run again")
        with translated("end what is on its way here"), contextlib.suppress(libvirt.libvirtError):
            domain.destroy()
        _until_gone(conn, uuid)
    if not os.path.exists(depot.incoming(uuid)):
        return domain is not None
    for directory in (os.path.join(depot.staging, uuid), depot.machine(uuid)):
        shutil.rmtree(directory, ignore_errors=True)
    return True


def _until_gone(conn: Connect, uuid: str) -> None:
    def probe() -> None:
        if observe.find_domain(conn, uuid, None)[0] is not None:
            raise Pending("it is still there")

    wait_for(probe, _GONE_TIMEOUT, what="the end of what was on its way", interval=0.1)
