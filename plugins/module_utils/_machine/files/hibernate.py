# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hibernation: a machine's memory and the state of its devices are written to a file of the machine, and restored.

libvirt saves (``memory.save``), which ends the machine's run. Then the file is compressed, verified, and renamed to
``memory.zst``. A run that is killed in between leaves one of the two; either is enough to resume from, and
:func:`settle` finishes the work. libvirt's managed save is not used: not all releases can compress it with zstd, and it
doesn't move with the machine's files.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
import typing as t
import xml.etree.ElementTree as ET

from ansible_collections.virtuoso.grid.plugins.module_utils._command import BOUND_TO_US, bound_command, missing_remedy
from ansible_collections.virtuoso.grid.plugins.module_utils._disk_space import check_space, flush
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor import domain_xml, metadata, monitor, portable
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.api import Connect, Domain
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.connection import libvirt, translated
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core import memory
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.records import DiskIdentity
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.files.disk import Depot, write_whole
from ansible_collections.virtuoso.grid.plugins.module_utils._times import now

Head = memory.Head
Edit = t.Callable[[ET.Element], None]

_TIMEOUT = 3600
_LEVEL = "-3"
# Seconds for an agent to open its channel after its machine was resumed, and then to answer: emulated guests on a busy
# host took 10
_AGENT_PATIENCE = 5
_ANSWER_PATIENCE = 30


def _path(depot: Depot, uuid: str, name: str) -> str:
    return os.path.join(depot.machine(uuid), name)


def files(depot: Depot, uuid: str) -> dict[str, str]:
    """The files with a machine's memory, by their names in its directory; only finished ones."""
    return files_beside(depot.disk(uuid))


def files_beside(disk: str | None) -> dict[str, str]:
    """The same as :func:`files`, by the path of the machine's disk."""
    if disk is None:
        return {}
    path, saved = (os.path.join(os.path.dirname(disk), name) for name in (memory.MEMORY, memory.SAVED))
    if os.path.exists(path):
        return {memory.MEMORY: path}
    return {memory.SAVED: saved} if is_whole(saved) else {}


def is_whole(saved: str) -> bool:
    """Whether libvirt has finished saving a memory."""
    try:
        with open(saved, "rb") as file:
            return memory.is_saved(file.read(16))
    except OSError:
        return False


def present(depot: Depot, uuid: str) -> bool:
    """Whether a memory of the machine is kept."""
    return bool(files(depot, uuid))


def disk_identity(path: str | None) -> DiskIdentity | None:
    """The size and time of change of a disk, ``None`` where there is none."""
    try:
        facts = os.stat(path) if path else None
    except FileNotFoundError:
        return None
    return {"size": facts.st_size, "mtime_ns": facts.st_mtime_ns} if facts else None


def read(depot: Depot, uuid: str) -> Head | None:
    """The head of a machine's memory; ``None`` where there is none or it isn't compressed yet.

    :raises GridError: ``hibernation_invalid``.
    """
    try:
        return _head_of(_path(depot, uuid, memory.MEMORY))
    except FileNotFoundError:
        return None


def _head_of(path: str) -> Head:
    with open(path, "rb") as file:
        return memory.unpack(file.read(memory.HEAD_SIZE), os.fstat(file.fileno()).st_size)


def read_file(path: str) -> Head | None:
    """The head of a memory in any file, such as a snapshot's; ``None`` where it isn't compressed.

    :raises GridError: ``hibernation_invalid``.
    """
    return None if path.endswith(".save") else _head_of(path)


def restamp(depot: Depot, uuid: str, *, generation: int, disk: DiskIdentity | None) -> None:
    """Rewrite the head's generation and disk after a machine's files were moved to another host.

    :raises GridError: ``hibernation_invalid`` where there is no memory.
    """
    head = read(depot, uuid)
    if head is None:
        raise GridError("hibernation_invalid", "the machine's memory is not here", remedy="Run the same again")
    with open(_path(depot, uuid, memory.MEMORY), "r+b") as file:
        file.write(memory.pack({**head, "generation": generation, "disk": disk}))
        file.flush()
        os.fsync(file.fileno())


def check(depot: Depot, uuid: str, generation: int, disk: str | None) -> None:
    """Refuse to resume from a memory that doesn't fit the machine. Nothing is changed.

    :param generation: the machine's, from its domain's metadata.
    :param disk: the path of its disk.
    :raises GridError: ``hibernation_invalid``, ``hibernation_foreign``, ``hibernation_stale``.
    """
    found = disk_identity(disk)
    head = read(depot, uuid)
    if head is not None:
        memory.check_fits(head, uuid, generation, found)
        return
    saved = disk_identity(_path(depot, uuid, memory.SAVED))
    if saved is not None and found is not None and found["mtime_ns"] > saved["mtime_ns"]:
        raise memory.stale_disk()


def _portable(domain: Domain) -> str:
    """The definition that is kept with the memory, in a form that older libvirts read too."""
    tree = domain_xml.parse(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_SECURE | libvirt.VIR_DOMAIN_XML_MIGRATABLE))
    portable.drop_implicit(tree)
    return domain_xml.to_text(tree)


def hibernate(conn: Connect, depot: Depot, domain: Domain, note: bytes | None = None) -> None:
    """Write a running or paused machine's memory to a file, and end its run. It is resumed as it was.

    :param note: written as :data:`memory.JOURNEY` where the machine is hibernated only to be moved, so that a later run
        wakes it.
    :raises GridError: ``disk_full``, ``libvirt_error``; the machine then runs on.
    """
    uuid = domain.UUIDString()
    discard(depot, uuid)
    if note is None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(_path(depot, uuid, memory.JOURNEY))
    else:
        write_whole(_path(depot, uuid, memory.JOURNEY), note)
    path = _path(depot, uuid, memory.SAVED)
    # The file has at most the size of the guest's memory, and the compressed copy is made beside it.
    check_space(os.path.dirname(path), domain.maxMemory() * 1024 * 3 // 2, "the machine's memory")
    with translated("save the machine's memory"):
        monitor.activate(domain)
        try:
            domain.saveFlags(path, _portable(domain), 0)
        except libvirt.libvirtError:
            if domain.isActive():
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
            raise
    settle(conn, depot, domain)


def settle(conn: Connect, depot: Depot, domain: Domain) -> bool:
    """Compress the memory that libvirt saved, if there is one; returns whether there was anything to do."""
    uuid = domain.UUIDString()
    saved, target = (_path(depot, uuid, name) for name in (memory.SAVED, memory.MEMORY))
    if not os.path.exists(saved):
        return False
    if os.path.exists(target) or memory.SAVED not in files(depot, uuid):
        # Compressed already; or libvirt was killed while it saved, and the machine ran on.
        os.unlink(saved)
        return True
    with translated("compress the machine's memory"):
        tree = domain_xml.parse(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
        check(depot, uuid, 0, domain_xml.read(tree)["disk_path"])
        compress_file(conn, depot, tree, saved, target)
    return True


def compress_file(
    conn: Connect, depot: Depot, tree: ET.Element, saved: str, target: str, more: Head | None = None
) -> None:
    """Compress the file ``saved`` of libvirt's to ``target``, verify it, and remove ``saved``.

    :param tree: the machine's definition.
    :param more: fields of the head beside those of the machine.
    """
    depot.prepare()
    facts = _facts(conn, tree)
    staging = os.path.join(depot.staging, f"{facts['uuid']}.zst")
    try:
        size = _compress(saved, staging)
        head: Head = {**facts, "size": os.path.getsize(saved), "compressed": size, **(more or {})}
        with open(staging, "r+b") as file:
            file.write(memory.pack(head))
            file.flush()
            os.fsync(file.fileno())
        # The stream has a checksum of what it was made of.
        bound_command(
            ["zstd", "-t", "-q", staging], timeout=_TIMEOUT, code="hibernation_failed", remedy="Run the same again"
        )
        os.rename(staging, target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(staging)
    flush(os.path.dirname(target))
    os.unlink(saved)


def _facts(conn: Connect, tree: ET.Element) -> Head:
    """The head's fields of the machine."""
    values, model = metadata.read(tree), domain_xml.read(tree)
    return {
        "uuid": values["uuid"] if values else None,
        "name": values["name"] if values else None,
        "generation": values["generation"] if values else None,
        "image": values["image"] if values else None,
        "layers": [os.path.basename(path) for path in domain_xml.chain(tree)],
        "disk": disk_identity(model["disk_path"]),
        "vcpus": model["vcpus"],
        "memory": model["memory"],
        "machine_type": model["machine_type"],
        "virtualization": model["virtualization"],
        "libvirt": conn.getLibVersion(),
        "qemu": conn.getVersion(),
        "created": now(),
    }


def _zstd(words: t.Sequence[str], source: t.IO[bytes], target: t.IO[bytes]) -> None:
    try:
        done = subprocess.run(
            [*BOUND_TO_US, "zstd", "-q", "-c", *words],
            stdin=source,
            stdout=target,
            stderr=subprocess.PIPE,
            timeout=_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise GridError("timed_out", f"zstd did not end within {_TIMEOUT} s", remedy="Run the same again") from exc
    if done.returncode == 0:
        return
    said = done.stderr.decode("utf-8", "replace").strip()[-500:]
    if "failed to execute zstd" in said:
        raise GridError("program_missing", "the program zstd is not installed", remedy=missing_remedy("zstd"))
    if "No space left" in said:
        raise GridError(
            "disk_full", "the depot's file system is full", remedy="Free space in the depot's file system and run again"
        )
    raise GridError(
        "hibernation_invalid" if "-d" in words else "hibernation_failed",
        f"zstd says: {said}",
        remedy="Run the same again",
    )


def _compress(source: str, target: str) -> int:
    """Write room for the head and the compressed ``source`` to ``target``; returns the compressed bytes."""
    descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "wb") as out, open(source, "rb") as data:
        out.write(memory.pack({"uuid": "", "compressed": 0}))
        out.flush()
        _zstd([_LEVEL, "-T0", "--check"], data, out)
        os.fsync(out.fileno())
        return os.fstat(out.fileno()).st_size - memory.HEAD_SIZE


@contextlib.contextmanager
def unpacked(depot: Depot, uuid: str, path: str | None = None) -> t.Iterator[str]:
    """The path of a temporary file with the memory as libvirt saved it.

    :param path: the compressed memory, where it isn't the hibernated machine's own.
    :raises GridError: ``hibernation_invalid`` where it is damaged, ``disk_full``.
    """
    head = read(depot, uuid) if path is None else _head_of(path)
    if head is None:
        yield _path(depot, uuid, memory.SAVED)
        return
    depot.prepare()
    staging = os.path.join(depot.staging, f"{uuid}.save")
    try:
        check_space(depot.staging, head["size"], "the machine's memory")
        descriptor = os.open(staging, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with open(descriptor, "wb") as out, open(path or _path(depot, uuid, memory.MEMORY), "rb") as data:
            _zstd(["-d"], data, out)
        with open(staging, "rb") as file:
            whole = memory.is_saved(file.read(16))
        if not whole or os.path.getsize(staging) != head["size"]:
            raise GridError(
                "hibernation_invalid", "the memory is not what was saved", remedy="Start the machine with discard"
            )
        yield staging
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(staging)


def resume(conn: Connect, depot: Depot, uuid: str, edit: Edit | None = None) -> None:
    """Restore a machine from its memory, paused, and remove the file, which will be out of date once the guest runs.

    The caller lets it run. After a run that was killed in between, the machine is paused; as long as the file exists,
    the guest has not run.

    :param edit: changes the XML tree that was saved with the memory, where files have other paths now.
    :raises GridError: ``hibernation_invalid``, ``libvirt_error``; the memory is then kept.
    """
    with translated("resume the machine from its memory"), unpacked(depot, uuid) as path:
        if edit is not None:
            edit_saved(conn, path, edit)
        conn.restoreFlags(path, None, libvirt.VIR_DOMAIN_SAVE_PAUSED)
    discard(depot, uuid)
    with translated("activate the machine's disk"):
        monitor.activate(conn.lookupByUUIDString(uuid))


def edit_saved(conn: Connect, path: str, edit: Edit) -> None:
    """Change the definition in a file that libvirt saved (``virsh save-image-define``)."""
    tree = domain_xml.parse(conn.saveImageGetXMLDesc(path, libvirt.VIR_DOMAIN_SAVE_IMAGE_XML_SECURE))
    edit(tree)
    conn.saveImageDefineXML(path, domain_xml.to_text(tree), 0)


def discard(depot: Depot, uuid: str) -> None:
    """Remove the files with a machine's memory."""
    for name in (memory.MEMORY, memory.SAVED):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(_path(depot, uuid, name))


def set_clock(domain: Domain, wake: threading.Event | None = None) -> bool:
    """Set a guest's clock through its agent; returns whether that was done.

    :param wake: set by libvirt's events, to see at once that the agent is there.
    """
    end = time.monotonic() + _AGENT_PATIENCE
    while not domain_xml.agent_connected(domain_xml.parse(domain.XMLDesc(0))):
        if time.monotonic() >= end:
            return False
        if wake is not None:
            wake.clear()
            wake.wait(0.5)
        else:
            time.sleep(0.2)
    try:
        domain.agentSetResponseTimeout(_ANSWER_PATIENCE, 0)
        moment = time.time_ns()
        domain.setTime({"seconds": moment // 10**9, "nseconds": moment % 10**9}, 0)
        return True
    except libvirt.libvirtError:
        return False
