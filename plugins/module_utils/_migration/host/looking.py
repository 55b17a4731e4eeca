# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host says of machines that are to move, and of itself as the end of a journey."""

from __future__ import annotations

import base64
import contextlib
import glob
import json
import os
import typing as t
import zlib

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor import capabilities, domain_xml, metadata
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.api import Connect, Domain
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.connection import libvirt, translated
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core import copies, memory
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.entry import check_uuid
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.files import disk
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.state import observe, survey
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.state.addresses import Finder
from ansible_collections.virtuoso.grid.plugins.module_utils._migration import choice
from ansible_collections.virtuoso.grid.plugins.module_utils._migration.host import sleeping
from ansible_collections.virtuoso.grid.plugins.module_utils._migration.records import Host, Incoming, Unsettled, View

_USERFAULT = "/proc/sys/vm/unprivileged_userfaultfd"
_SEED_LIMIT = 16 * 2**20


def incoming(depot: disk.Depot, uuid: str) -> Incoming | None:
    """What came here of a machine and is nobody's yet: ``generation``, ``source``, ``attempt``, ``complete``; what it
    ``was`` if it is to be woken."""
    try:
        with open(depot.incoming(uuid), encoding="utf-8") as file:
            told = json.load(file)
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        told = {}
    return {
        "generation": int(told.get("generation") or 0),
        "source": str(told.get("source") or ""),
        "attempt": str(told.get("attempt") or ""),
        "complete": bool(told.get("complete")),
        "was": told.get("was") if told.get("was") in ("running", "paused") else None,
    }


def paused_by_move(domain: Domain) -> bool:
    """Whether the guest stands still because a move did that, not a person or a full disk."""
    state, reason = domain.state()[:2]
    return state == libvirt.VIR_DOMAIN_PAUSED and reason in (
        libvirt.VIR_DOMAIN_PAUSED_UNKNOWN,
        libvirt.VIR_DOMAIN_PAUSED_MIGRATION,
        libvirt.VIR_DOMAIN_PAUSED_SAVE,
        libvirt.VIR_DOMAIN_PAUSED_FROM_SNAPSHOT,
        libvirt.VIR_DOMAIN_PAUSED_STARTING_UP,
    )


def state_word(depot: disk.Depot, domain: Domain) -> str:
    """``running``, ``paused``, ``stopped``, or ``hibernated`` where its memory is kept."""
    state = observe.state_of(domain)
    return "hibernated" if state == "stopped" and sleeping.asleep(depot, domain) else state


def arriving(domain: Domain) -> bool:
    """Whether a domain is nothing but the receiving end of a live move: it isn't kept yet, and its guest hasn't run."""
    return not domain.isPersistent() and observe.state_of(domain) != "running"


def _absent(depot: disk.Depot, uuid: str | None, name: str | None) -> View:
    came = incoming(depot, uuid) if uuid else None
    return t.cast(View, {"uuid": uuid, "name": name, "state": "absent", "incoming": came})


def _allocated(path: str) -> int:
    try:
        return os.stat(path).st_blocks * 512
    except OSError:
        return 0


def seed_text(path: str) -> str | None:
    """A seed as text that is short: most of it is nothing."""
    try:
        if os.path.getsize(path) > _SEED_LIMIT:
            return None
        with open(path, "rb") as file:
            return base64.b64encode(zlib.compress(file.read(), 9)).decode("ascii")
    except FileNotFoundError:
        return None


def seed_bytes(text: str) -> bytes:
    """:raises GridError: ``invalid_seed``."""
    try:
        inflate = zlib.decompressobj()
        data = inflate.decompress(base64.b64decode(text, validate=True), _SEED_LIMIT)
        if inflate.unconsumed_tail or not inflate.eof:
            raise ValueError("it is too large or cut off")
        return data
    except (ValueError, zlib.error) as exc:
        raise GridError("invalid_seed", f"the machine's seed can't be read: {exc}", remedy="Run again") from exc


def machine(conn: Connect, depot: disk.Depot, uuid: str | None, name: str | None) -> View:
    """What there is of a machine here.

    :raises GridError: ``foreign_domain``, ``disk_invalid``.
    """
    domain, tree = observe.find_domain(conn, uuid, name)
    if domain is None:
        return _absent(depot, uuid, name)
    uuid = domain.UUIDString()
    if arriving(domain):
        return {**_absent(depot, uuid, name), "arriving": True}
    values = metadata.read(tree)
    if values is None:
        raise sleeping.foreign()
    with translated("read the domain"):
        state = state_word(depot, domain)
        live = observe.running(domain) if state in ("running", "paused") else None
        snapshots = domain.snapshotNum(0)
        autostart = bool(domain.autostart())
    now = live if live is not None else tree
    model = domain_xml.read(now)
    path = copies.shown(model["disk_path"] or depot.disk(uuid))
    file = disk.read_qcow2(path)
    chain = depot.chain(disk.layer_of(file))
    view = {
        "uuid": uuid,
        "name": values["name"],
        "state": state,
        "generation": values["generation"],
        "moving": values["moving"],
        "incoming": incoming(depot, uuid),
        "slept": sleeping.slept(depot, uuid),
        "paused_by_move": paused_by_move(domain),
        **{key: values[key] for key in ("owner", "site", "image")},
        **{
            key: model[key]
            for key in (
                "vcpus",
                "memory",
                "machine_type",
                "virtualization",
                "network",
                "mac",
                "extra_networks",
                "pages",
            )
        },
        "disk": file.size if file else None,
        "disk_used": _allocated(path),
        "disk_there": file is not None,
        "layers": [os.path.basename(layer)[: -len(".qcow2")].replace("-", ":", 1) for layer in chain.paths],
        "tied": choice.tied(now),
        "snapshots": snapshots,
        "autostart": autostart,
        "path": depot.path,
        "facts": survey.facts(domain)[0],
    }
    return t.cast(View, view)


def leases(conn: Connect, networks: t.Iterable[str]) -> dict[str, str]:
    """MAC by address, of all machines that the hosts' own DHCP servers know."""
    finder = Finder(conn)
    found: dict[str, str] = {}
    for network in networks:
        for mac, addresses in finder.leases(network).items():
            found.update(dict.fromkeys(addresses, mac))
    return found


def userfault() -> bool:
    """Whether QEMU, which is no root, may take memory that comes later (post-copy)."""
    with contextlib.suppress(OSError), open(_USERFAULT, encoding="ascii") as file:
        return file.read().strip() == "1"
    return False


def host(conn: Connect, depot: disk.Depot) -> Host:
    """The facts of this host that moves depend on."""
    facts = capabilities.facts(conn)
    images = capabilities.images(depot.path)
    with translated("list the domains"):
        domains = {domain.name(): domain.UUIDString() for domain in conn.listAllDomains(0)}
    offered = {
        **{key: value for key, value in facts.items() if key != "machines"},
        **depot.space(),
        "virtualization": capabilities.virtualization().kind,
        "images": images,
        "layers": [layer["digest"] for layer in images],
        "domains": domains,
        "leases": leases(conn, facts["networks"]),
        "postcopy": userfault(),
        "path": depot.path,
    }
    return t.cast(Host, offered)


def unsettled(conn: Connect, depot: disk.Depot) -> list[Unsettled]:
    """The machines of which a copy here is on its way: from here, or to here."""
    found: dict[str, Unsettled] = {}
    for domain in conn.listAllDomains(0):
        values = metadata.read(observe.configured(domain))
        if values is not None and values["moving"]:
            found[domain.UUIDString()] = {"uuid": domain.UUIDString(), "name": domain.name()}
    notes = (os.path.basename(depot.incoming("")), memory.JOURNEY)
    for path in (path for note in notes for path in glob.glob(os.path.join(glob.escape(depot.machines), "*", note))):
        uuid = os.path.basename(os.path.dirname(path))
        try:
            found.setdefault(check_uuid(uuid), {"uuid": uuid, "name": None})
        except GridError:
            continue
    return list(found.values())
