# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The memory of a machine that sleeps on its journey: kept and woken by :mod:`hibernate`, and made the target's own
there."""

from __future__ import annotations

import contextlib
import json
import os
import xml.etree.ElementTree as ET

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor import domain_xml, metadata, portable
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.api import Connect, Domain
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.connection import libvirt, translated
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core import copies, memory
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.files import hibernate
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.files.disk import Depot
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.state import observe


def foreign() -> GridError:
    """The error of a domain that isn't a machine of ours."""
    return GridError(
        "foreign_domain", "the domain isn't one of this collection's", remedy="Look at it; it was left alone"
    )


def files(depot: Depot, uuid: str) -> dict[str, str]:
    """The files of the machine's memory, by the names that they have in its directory."""
    return hibernate.files(depot, uuid)


def asleep(depot: Depot, domain: Domain) -> bool:
    """Whether the machine's memory is kept."""
    return not domain.isActive() and hibernate.present(depot, domain.UUIDString())


def check(conn: Connect, depot: Depot, uuid: str) -> None:
    """:raises GridError: ``hibernation_invalid``, ``hibernation_foreign``, ``hibernation_stale`` for a memory that
    doesn't fit the machine."""
    dummy, tree = observe.find_domain(conn, uuid, None)
    if tree is not None:
        _check(depot, uuid, tree)


def _check(depot: Depot, uuid: str, tree: ET.Element) -> None:
    values = metadata.read(tree)
    path = domain_xml.read(tree)["disk_path"]
    # Marked already where a step is given again, as Ansible does whose connection broke.
    hibernate.check(depot, uuid, values["generation"] if values else 0, path and copies.shown(path))


def sleep(conn: Connect, depot: Depot, domain: Domain) -> None:
    """Keep the machine's memory, and stop it: only for its journey, which is noted beside the memory."""
    hibernate.hibernate(conn, depot, domain, json.dumps({"was": observe.state_of(domain)}).encode())


def _note(depot: Depot, uuid: str) -> str:
    return os.path.join(depot.machine(uuid), memory.JOURNEY)


def slept(depot: Depot, uuid: str) -> str | None:
    """What the machine was before it was put to sleep for a journey; ``None`` where it wasn't, or where it goes on
    already."""
    try:
        with open(_note(depot, uuid), encoding="utf-8") as file:
            return "paused" if json.load(file).get("was") == "paused" else "running"
    except FileNotFoundError:
        return None
    except (OSError, ValueError, AttributeError):
        return "running"


def wake(conn: Connect, depot: Depot, domain: Domain, was: str | None) -> bool:
    """Have a machine go on that was put to sleep for a journey, also where a run was killed while it did; whether there
    was anything to be done.

    :param was: what it was before, ``None`` where it sleeps on.
    """
    uuid = domain.UUIDString()
    done = False
    if was is not None and asleep(depot, domain):
        _resume(conn, depot, domain, was == "running")
        done = True
    elif was is not None and domain.isActive():
        # Restored, and paused until its memory's file is gone: the guest hasn't run on since.
        hibernate.discard(depot, uuid)
        if was == "running" and domain.state()[0] == libvirt.VIR_DOMAIN_PAUSED:
            with translated("let the guest run"):
                domain.resume()
            done = True
    with contextlib.suppress(FileNotFoundError):
        os.unlink(_note(depot, uuid))
    return done


def make_whole(conn: Connect, depot: Depot, domain: Domain) -> None:
    """Finish what an interrupted hibernation has left, and see that the memory fits the machine."""
    hibernate.settle(conn, depot, domain)
    _check(depot, domain.UUIDString(), observe.configured(domain))


def adopt(depot: Depot, uuid: str, generation: int) -> None:
    """A memory that came with the machine's disk is that of the copy here.

    :raises GridError: ``hibernation_invalid``, ``hibernation_foreign``.
    """
    head = hibernate.read(depot, uuid)
    if head is None:
        return
    if head["uuid"] != uuid:
        raise GridError(
            "hibernation_foreign", "the memory that came is of another machine", remedy="Run again", memory=head["uuid"]
        )
    hibernate.restamp(depot, uuid, generation=generation, disk=hibernate.disk_identity(depot.disk(uuid)))


def _resume(conn: Connect, depot: Depot, domain: Domain, run: bool) -> None:
    """Let the machine go on, as what it is here and now. :param run: otherwise it stays paused, as it was."""
    uuid, tree = domain.UUIDString(), observe.configured(domain)
    _check(depot, uuid, tree)
    values = metadata.read(tree)
    if values is None:
        raise foreign()

    def edit(saved: ET.Element) -> None:
        path = domain_xml.read(saved)["disk_path"] or ""
        there = path.rpartition(f"/machines/{uuid}/")[0]
        if there and there != depot.path:
            portable.replace_prefix(saved, there, depot.path)
        domain_xml.put_metadata(saved, values)

    hibernate.resume(conn, depot, uuid, edit)
    with translated("let the guest run"):
        if run and domain.state()[0] == libvirt.VIR_DOMAIN_PAUSED:
            domain.resume()
