# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The snapshots that a machine has, and the files with their memories."""

from __future__ import annotations

import os
import time
import xml.etree.ElementTree as ET

from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.api import Domain
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.records import Snapshot

ENDINGS = (".zst", ".save")
"""The endings of a file with a memory: compressed, or as libvirt saved it."""


def directory(path: str) -> str:
    """The directory of the memories of a machine's snapshots. :param path: of its disk."""
    return os.path.join(os.path.dirname(path), "snapshots")


def memory_file(path: str, name: str) -> str | None:
    """The file with a snapshot's memory, ``None`` where it has none. :param path: of the machine's disk."""
    for ending in ENDINGS:
        found = os.path.join(directory(path), name + ending)
        if os.path.exists(found):
            return found
    return None


def listed(domain: Domain, path: str | None) -> list[Snapshot]:
    """The snapshots of a machine, the oldest first. :param path: of its disk."""
    found: list[Snapshot] = []
    for each in domain.listAllSnapshots(0) if domain.snapshotNum(0) else ():
        tree = ET.fromstring(each.getXMLDesc(0))
        name = each.getName()
        memory = memory_file(path, name) if path else None
        found.append(
            {
                "name": name,
                "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(int(tree.findtext("creationTime", "0")))),
                "description": tree.findtext("description") or None,
                "memory": memory is not None,
                "memory_size": os.path.getsize(memory) if memory else None,
            }
        )
    return sorted(found, key=lambda row: (row["created"], row["name"]))
