# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The memory of a machine that was put to sleep for its journey."""

from __future__ import annotations

import os
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor import domain_xml
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.connection import Hypervisor, libvirt, translated
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.disk import Depot

View = t.Mapping[str, t.Any]

MEMORY = "memory.save"


def files(depot: Depot, uuid: str) -> dict[str, str]:
    """The files of the machine's memory, by the names that they have in its directory."""
    path = os.path.join(depot.machine(uuid), MEMORY)
    return {MEMORY: path} if os.path.exists(path) else {}


def asleep(depot: Depot, domain: t.Any) -> bool:
    """Whether the machine's memory is kept."""
    return not domain.isActive() and bool(files(depot, domain.UUIDString()))


def sleep(hypervisor: Hypervisor, depot: Depot, domain: t.Any, params: View) -> None:
    """Keep the machine's memory, and stop it."""
    path = os.path.join(depot.machine(domain.UUIDString()), MEMORY)
    with translated("hibernate the machine"):
        tree = domain_xml.parse(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_SECURE | libvirt.VIR_DOMAIN_XML_MIGRATABLE))
        domain_xml.drop_implicit(tree)
        domain.saveFlags(path, domain_xml.to_text(tree), 0)


def wake(hypervisor: Hypervisor, depot: Depot, domain: t.Any, params: View) -> None:
    """Let the machine go on."""
    path = os.path.join(depot.machine(domain.UUIDString()), MEMORY)
    with translated("resume the machine"):
        hypervisor.conn.restoreFlags(path, None, 0)
        os.unlink(path)
