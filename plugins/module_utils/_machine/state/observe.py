# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Looks what there is of a machine on this host, its domain and files, and fills :class:`actual.Observed` with it."""

from __future__ import annotations

import dataclasses
import os
import typing as t
import xml.etree.ElementTree as ET

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor import domain_xml, metadata
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.api import Connect, Domain
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.connection import (
    libvirt,
    state_word,
    translated,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.records import MachineModel
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core import memory
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.actual import KEPT, SAVED, Observed
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.files import hibernate
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.files.disk import Depot, layer_of, read_qcow2


def default_shares() -> int:
    """The weight of a control group by default: 100 in version 2 of control groups, 1024 in version 1."""
    return 100 if os.path.exists("/sys/fs/cgroup/cgroup.controllers") else 1024


def foreign(name: str, uuid: str, ours: bool) -> GridError:
    """The error for a domain that has the machine's name or uuid and is another.

    :param ours: whether it is a machine of the grid.
    """
    what = "another machine of the grid" if ours else "a domain that is not the grid's"
    return GridError(
        "foreign_domain",
        f"{what} is here under that name or uuid: {name}, {uuid}; it was left alone",
        remedy="Give the order another name, or rename or remove that domain yourself",
        domain={"name": name, "uuid": uuid},
    )


def _lookup(find: t.Callable[[str], Domain], key: str | None) -> Domain | None:
    if key is None:
        return None
    try:
        return find(key)
    except libvirt.libvirtError as exc:
        if exc.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return None
        raise


Tree = t.Any
"""An :class:`ET.Element`, or ``None`` exactly where the domain beside it is ``None``, which types can't express."""


def find_domain(conn: Connect, uuid: str | None, name: str | None) -> tuple[Domain | None, Tree]:
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


def configured(domain: Domain) -> ET.Element:
    """The XML tree of the domain at its next start, with its secrets."""
    return domain_xml.parse(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE))


def running(domain: Domain) -> ET.Element:
    """The XML tree of the domain as it runs now, with its secrets."""
    return domain_xml.parse(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_SECURE))


def state_of(domain: Domain) -> str:
    """``running``, ``paused`` or ``stopped``."""
    return state_word(domain.state()[0])


def paused_reason(domain: Domain) -> str | None:
    """Why a machine is paused, ``None`` where it isn't: ``user``, ``no_space``, ``io_error`` or ``other``."""
    state, reason = domain.state()[:2]
    if state != libvirt.VIR_DOMAIN_PAUSED:
        return None
    if reason == libvirt.VIR_DOMAIN_PAUSED_IOERROR:
        full = libvirt.VIR_DOMAIN_DISK_ERROR_NO_SPACE in domain.diskErrors(0).values()
        return "no_space" if full else "io_error"
    return "user" if reason == libvirt.VIR_DOMAIN_PAUSED_USER else "other"


def model_of(tree: ET.Element, autostart: bool | None) -> MachineModel:
    """The model of a domain, with the default weight where it has none.

    :param autostart: whether libvirt starts it with its host; ``None`` where that doesn't count.
    """
    model: MachineModel = {**domain_xml.read(tree), "autostart": autostart}
    if model["cpu_shares"] is None:
        model["cpu_shares"] = default_shares()
    return model


class Look(t.NamedTuple):
    """What was seen of a machine; ``domain`` and ``tree``, its configured XML tree, are ``None`` without a domain."""

    domain: t.Optional[Domain]
    tree: Tree
    observed: Observed


def observe(conn: Connect, depot: Depot, uuid: str | None, name: str | None) -> Look:
    """Look what there is of a machine.

    :raises GridError: ``foreign_domain``, ``disk_invalid``.
    """
    domain, tree = find_domain(conn, uuid, name)
    if domain is None:
        return Look(None, None, _files(depot, uuid, None) if uuid is not None else Observed())
    uuid = domain.UUIDString()
    files = _files(depot, uuid, domain_xml.read(tree)["disk_path"])
    with translated("read the domain"):
        state = state_of(domain)
        now = running(domain) if state != "stopped" else None
        autostart = bool(domain.autostart())
    names = hibernate.files(depot, uuid)
    kept = KEPT if memory.MEMORY in names else SAVED if names else None
    observed = dataclasses.replace(
        files,
        state="hibernated" if kept and state == "stopped" else state,
        config=model_of(tree, autostart),
        live=model_of(now, autostart) if now is not None else None,
        metadata=metadata.read(tree),
        memory=kept,
        agent=now is not None and domain_xml.agent_connected(now),
    )
    return Look(domain, tree, observed)


def _files(depot: Depot, uuid: str, configured_disk: str | None) -> Observed:
    """What there is of a machine's files.

    :param configured_disk: the path of its disk in its domain.
    """
    path = depot.found_disk(uuid, configured_disk)
    disk = read_qcow2(path)
    return Observed(
        disk=disk,
        missing=depot.chain(layer_of(disk)).missing,
        seed=os.path.exists(depot.seed(uuid)),
        files=any(os.path.isdir(directory) for directory in (depot.machine(uuid), os.path.join(depot.staging, uuid))),
        leftover=any(os.path.exists(other) for other in depot.paging_disks(uuid) if other != path),
        incoming=os.path.exists(depot.incoming(uuid)),
    )
