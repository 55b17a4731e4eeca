# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a machine has of snapshots, and where their memories are."""

from __future__ import annotations

import os
import time
import typing as t
import xml.etree.ElementTree as ET

Result = t.Dict[str, t.Any]

ENDINGS = (".zst", ".save")


def directory(path: str) -> str:
    """Where the memories of a machine's snapshots are. :param path: of its disk."""
    return os.path.join(os.path.dirname(path), "snapshots")


def memory_file(path: str, name: str) -> str | None:
    """The file with a snapshot's memory: compressed, or whole as libvirt saved it."""
    for ending in ENDINGS:
        found = os.path.join(directory(path), name + ending)
        if os.path.exists(found):
            return found
    return None


def listed(domain: t.Any, path: str | None) -> list[Result]:
    """What a machine has of snapshots, the oldest first."""
    found = []
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
