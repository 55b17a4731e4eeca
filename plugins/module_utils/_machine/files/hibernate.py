# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine's memory and the state of its devices as a file of the machine, and back.

libvirt saves (``memory.save``), which ends the machine's run; then the file is compressed, verified, and gets its name
(``memory.zst``). Whoever is killed in between leaves one of both, and each is enough to resume from; :func:`settle`
finishes what another left. Not libvirt's managed save: that can't be compressed with zstd by all releases, and doesn't
move with the machine's files.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._command import BOUND_TO_US, bound_command, missing_remedy
from ansible_collections.virtuoso.grid.plugins.module_utils._disk_space import check_space, flush
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor import domain_xml, metadata, monitor
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.connection import libvirt, translated
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core import memory
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.files.disk import Depot, write_whole
from ansible_collections.virtuoso.grid.plugins.module_utils._times import now

Head = memory.Head
Edit = t.Callable[[t.Any], None]

_TIMEOUT = 3600
_LEVEL = "-3"
# Seconds for an agent to open its channel after its machine was resumed; and then to answer: guests that are emulated
# on a busy host took 10.
_AGENT_PATIENCE = 5
_ANSWER_PATIENCE = 30


def _path(depot: Depot, uuid: str, name: str) -> str:
    return os.path.join(depot.machine(uuid), name)


def files(depot: Depot, uuid: str) -> dict[str, str]:
    """The files that a machine's memory is in, by the names that they have in its directory; whole ones only."""
    return beside(depot.disk(uuid))


def beside(disk: str | None) -> dict[str, str]:
    """The same by the path of the machine's disk."""
    if disk is None:
        return {}
    path, saved = (os.path.join(os.path.dirname(disk), name) for name in (memory.MEMORY, memory.SAVED))
    if os.path.exists(path):
        return {memory.MEMORY: path}
    return {memory.SAVED: saved} if whole(saved) else {}


def whole(saved: str) -> bool:
    """Whether libvirt saved a memory to the end."""
    try:
        with open(saved, "rb") as file:
            return memory.is_saved(file.read(16))
    except OSError:
        return False


def present(depot: Depot, uuid: str) -> bool:
    """Whether a memory of the machine is kept."""
    return bool(files(depot, uuid))


def disk_identity(path: str | None) -> dict[str, int] | None:
    """By which a disk is known to be unwritten."""
    try:
        facts = os.stat(path) if path else None
    except FileNotFoundError:
        return None
    return {"size": facts.st_size, "mtime_ns": facts.st_mtime_ns} if facts else None


def read(depot: Depot, uuid: str) -> Head | None:
    """The head of a machine's memory; ``None`` where there is none, or it isn't compressed yet.

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
    """The head of a memory that lies elsewhere, as of a snapshot; ``None`` where it isn't compressed.
    :raises GridError: ``hibernation_invalid``."""
    return None if path.endswith(".save") else _head_of(path)


def restamp(depot: Depot, uuid: str, **changes: t.Any) -> None:
    """Write fields of the head anew, for example ``generation`` and ``disk`` of a machine whose files were moved to
    another host."""
    head = read(depot, uuid)
    if head is None:
        raise GridError("hibernation_invalid", "the machine's memory is not here", remedy="Run the same again")
    with open(_path(depot, uuid, memory.MEMORY), "r+b") as file:
        file.write(memory.pack({**head, **changes}))
        file.flush()
        os.fsync(file.fileno())


def check(depot: Depot, uuid: str, generation: int, disk: str | None) -> None:
    """Refuse to resume where the memory doesn't fit the machine; nothing is touched.

    :param generation: the machine's, from its domain's metadata. :param disk: the path of its disk.
    :raises GridError: ``hibernation_invalid``, ``hibernation_foreign``, ``hibernation_stale``.
    """
    found = disk_identity(disk)
    head = read(depot, uuid)
    if head is not None:
        memory.judge(head, uuid, generation, found)
        return
    saved = disk_identity(_path(depot, uuid, memory.SAVED))
    if saved is not None and found is not None and found["mtime_ns"] > saved["mtime_ns"]:
        raise memory.stale_disk()


def _portable(domain: t.Any) -> str:
    """The definition to be kept with the memory: one that older libvirts read too, without what newer ones tell of
    q35's own watchdog."""
    tree = domain_xml.parse(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_SECURE | libvirt.VIR_DOMAIN_XML_MIGRATABLE))
    devices = tree.find("devices")
    for watchdog in tree.findall("devices/watchdog[@model='itco']"):
        devices.remove(watchdog)
    return domain_xml.to_text(tree)


def hibernate(conn: t.Any, depot: Depot, domain: t.Any, note: bytes | None = None) -> None:
    """Keep a running or paused machine's memory, and end its run. It is resumed as it was, running or paused.

    :param note: kept as :data:`memory.JOURNEY` where the machine sleeps only to be moved, so that whoever finds it
        wakes it.
    :raises GridError: ``disk_full``, ``libvirt_error``: the machine runs on.
    """
    uuid = domain.UUIDString()
    discard(depot, uuid)
    if note is None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(_path(depot, uuid, memory.JOURNEY))
    else:
        write_whole(_path(depot, uuid, memory.JOURNEY), note)
    path = _path(depot, uuid, memory.SAVED)
    # What is saved is at most the guest's memory, and its compressed copy is made beside it.
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


def settle(conn: t.Any, depot: Depot, domain: t.Any) -> bool:
    """Compress what libvirt saved, if that is there; whether there was anything to be done."""
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


def compress_file(conn: t.Any, depot: Depot, tree: t.Any, saved: str, target: str, more: Head | None = None) -> None:
    """Make ``target`` of what libvirt saved, verify it, and remove that.
    :param more: fields of its head beside those of the machine."""
    depot.prepare()
    facts = _facts(conn, tree)
    staging = os.path.join(depot.staging, f"{facts['uuid']}.zst")
    try:
        size = _compress(saved, staging)
        head = {**facts, "size": os.path.getsize(saved), "compressed": size, **(more or {})}
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


def _facts(conn: t.Any, tree: t.Any) -> Head:
    """What the head says of the machine."""
    values, model = metadata.read(tree), domain_xml.read(tree)
    return {
        **{key: values[key] if values else None for key in ("uuid", "name", "generation", "image")},
        "layers": [os.path.basename(path) for path in domain_xml.chain(tree)],
        "disk": disk_identity(model["disk_path"]),
        **{key: model[key] for key in ("vcpus", "memory", "machine_type", "virtualization")},
        "libvirt": conn.getLibVersion(),
        "qemu": conn.getVersion(),
        "created": now(),
    }


def _zstd(words: t.Sequence[str], source: t.Any, target: t.Any) -> None:
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
    """Write ``target``: room for the head, and the compressed ``source``; returns how long that is."""
    descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "wb") as out, open(source, "rb") as data:
        out.write(memory.pack({"uuid": "", "compressed": 0}))
        out.flush()
        _zstd([_LEVEL, "-T0", "--check"], data, out)
        os.fsync(out.fileno())
        return os.fstat(out.fileno()).st_size - memory.HEAD_SIZE


@contextlib.contextmanager
def unpacked(depot: Depot, uuid: str, path: str | None = None) -> t.Iterator[str]:
    """The memory as libvirt saved it, in a file that is gone afterwards.

    :param path: the file with the memory, where it isn't that of the hibernated machine.
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


def resume(conn: t.Any, depot: Depot, uuid: str, edit: Edit | None = None) -> None:
    """Restore a machine from its memory, paused; its memory's file is gone afterwards, for the guest will leave it
    behind.

    The caller lets it run. Whoever is killed between finds it paused; as long as the file is there, that machine has
    done nothing.

    :param edit: changes the XML tree that was saved with the memory, where files have other paths now.
    :raises GridError: ``hibernation_invalid``, ``libvirt_error``: the memory is kept.
    """
    with translated("resume the machine from its memory"), unpacked(depot, uuid) as path:
        if edit is not None:
            repath(conn, path, edit)
        conn.restoreFlags(path, None, libvirt.VIR_DOMAIN_SAVE_PAUSED)
    discard(depot, uuid)
    with translated("have the machine get hold of its disk"):
        monitor.activate(conn.lookupByUUIDString(uuid))


def repath(conn: t.Any, path: str, edit: Edit) -> None:
    """Change the definition in what libvirt saved (``virsh save-image-define``)."""
    tree = domain_xml.parse(conn.saveImageGetXMLDesc(path, libvirt.VIR_DOMAIN_SAVE_IMAGE_XML_SECURE))
    edit(tree)
    conn.saveImageDefineXML(path, domain_xml.to_text(tree), 0)


def discard(depot: Depot, uuid: str) -> None:
    """Remove what there is of a machine's memory."""
    for name in (memory.MEMORY, memory.SAVED):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(_path(depot, uuid, name))


def set_clock(domain: t.Any, wake: t.Any = None) -> bool:
    """Tell a guest the time, through its agent; whether it was told."""
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
