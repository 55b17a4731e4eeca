# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is there of a machine on this host: its domain, its files."""

from __future__ import annotations

import os
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor import domain_xml, metadata
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.connection import (
    libvirt,
    state_word,
    translated,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core import memory
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.actual import KEPT, SAVED, Observed
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.files import hibernate
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.files.disk import Depot, layer_of, read_qcow2

Model = t.Dict[str, t.Any]


def default_shares() -> int:
    """The weight of a control group that nobody gave one: 100 in version 2, 1024 in version 1 of control groups."""
    return 100 if os.path.exists("/sys/fs/cgroup/cgroup.controllers") else 1024


def foreign(name: str, uuid: str, ours: bool) -> GridError:
    """The error for a domain that stands where the machine should."""
    what = "another machine of the grid" if ours else "a domain that is not the grid's"
    return GridError(
        "foreign_domain",
        f"{what} is here under that name or uuid: {name}, {uuid}; it was left alone",
        remedy="Give the order another name, or rename or remove that domain yourself",
        domain={"name": name, "uuid": uuid},
    )


def _lookup(find: t.Callable[[str], t.Any], key: str | None) -> t.Any:
    if key is None:
        return None
    try:
        return find(key)
    except libvirt.libvirtError as exc:
        if exc.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return None
        raise


def find_domain(conn: t.Any, uuid: str | None, name: str | None) -> tuple[t.Any, t.Any]:
    """The machine's domain and its configured XML tree, or ``(None, None)``.

    :raises GridError: ``foreign_domain`` where the uuid or the name belongs to something else.
    """
    with translated("look for the machine"):
        domain = _lookup(conn.lookupByUUIDString, uuid)
        by_name = domain is None
        if by_name:
            domain = _lookup(conn.lookupByName, name)
        if domain is None:
            return None, None
        tree = configured(domain)
    values = metadata.read(tree)
    own = domain.UUIDString()
    if values is None or values["uuid"] != own or (by_name and uuid is not None):
        raise foreign(domain.name(), own, values is not None and values["uuid"] == own)
    return domain, tree


def configured(domain: t.Any) -> t.Any:
    """The XML tree of what the domain will be at its next start, with its secrets."""
    return domain_xml.parse(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE))


def running(domain: t.Any) -> t.Any:
    """The XML tree of what the domain is now, with its secrets."""
    return domain_xml.parse(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_SECURE))


def state_of(domain: t.Any) -> str:
    """``running``, ``paused`` or ``stopped``."""
    return state_word(domain.state()[0])


def paused_reason(domain: t.Any) -> str | None:
    """Why a machine is paused, ``None`` where it isn't: ``user``, ``no_space``, ``io_error`` or ``other``."""
    state, reason = domain.state()[:2]
    if state != libvirt.VIR_DOMAIN_PAUSED:
        return None
    if reason == libvirt.VIR_DOMAIN_PAUSED_IOERROR:
        full = libvirt.VIR_DOMAIN_DISK_ERROR_NO_SPACE in domain.diskErrors(0).values()
        return "no_space" if full else "io_error"
    return "user" if reason == libvirt.VIR_DOMAIN_PAUSED_USER else "other"


def with_shares(model: Model) -> Model:
    """The model with the weight that no weight means."""
    return {**model, "cpu_shares": model["cpu_shares"] if model["cpu_shares"] is not None else default_shares()}


def observe(conn: t.Any, depot: Depot, uuid: str | None, name: str | None) -> tuple[t.Any, t.Any, Observed]:
    """The domain, its configured XML tree, and what there is of the machine; the first two are ``None`` without a
    domain.

    :raises GridError: ``foreign_domain``, ``disk_invalid``.
    """
    domain, tree = find_domain(conn, uuid, name)
    uuid = domain.UUIDString() if domain is not None else uuid
    disk, missing, seed, files, leftover, incoming = None, None, False, False, False, False
    if uuid is not None:
        path = domain_xml.read(tree)["disk_path"] if tree is not None else None
        path = depot.found_disk(uuid, path)
        disk = read_qcow2(path)
        leftover = any(os.path.exists(other) for other in depot.paging_disks(uuid) if other != path)
        missing = depot.chain(layer_of(disk)).missing
        seed = os.path.exists(depot.seed(uuid))
        incoming = os.path.exists(depot.incoming(uuid))
        files = any(os.path.isdir(directory) for directory in (depot.machine(uuid), os.path.join(depot.staging, uuid)))
    if domain is None:
        return (
            None,
            None,
            Observed(disk=disk, missing=missing, seed=seed, files=files, leftover=leftover, incoming=incoming),
        )
    with translated("read the domain"):
        state = state_of(domain)
        now = running(domain) if state != "stopped" else None
        autostart = {"autostart": bool(domain.autostart())}
    live = {**with_shares(domain_xml.read(now)), **autostart} if now is not None else None
    config = {**with_shares(domain_xml.read(tree)), **autostart}
    agent = now is not None and domain_xml.agent_connected(now)
    names = hibernate.files(depot, uuid)
    kept = KEPT if memory.MEMORY in names else SAVED if names else None
    if kept and state == "stopped":
        state = "hibernated"
    return (
        domain,
        tree,
        Observed(state, config, live, metadata.read(tree), disk, seed, files, missing, leftover, kept, incoming, agent),
    )
