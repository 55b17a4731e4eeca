# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What changes in a domain's XML when the machine moves to another host (pure)."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.domain_xml import ROOT_DISK


def name_disk(domain: ET.Element, path: str) -> None:
    """Have the root disk be another file; the chain below it stays as it is told."""
    source = domain.find(f"devices/disk/target[@dev='{ROOT_DISK}']/../source")
    if source is not None:
        source.set("file", path)


def drop_implicit(domain: ET.Element) -> None:
    """What newer libvirts write of a machine's chip set, and older ones don't know though their QEMU has it: q35's
    watchdog."""
    devices = domain.find("devices")
    for watchdog in domain.findall("devices/watchdog[@model='itco']"):
        devices.remove(watchdog)


def replace_prefix(domain: ET.Element, old: str, new: str) -> None:
    """Files of disks, and of what they lie on, below the directory ``old`` are below ``new``."""
    for source in domain.findall("devices/disk//source"):
        path = source.get("file", "")
        if path.startswith(f"{old}/"):
            source.set("file", new + path[len(old) :])
