# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What changes in a domain's XML when the machine moves to another host (pure)."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.domain_xml import ROOT_DISK


def name_disk(domain: ET.Element, path: str) -> None:
    """Name another file as the root disk; the chain below it stays."""
    source = domain.find(f"devices/disk/target[@dev='{ROOT_DISK}']/../source")
    if source is not None:
        source.set("file", path)


def drop_implicit(domain: ET.Element) -> None:
    """Drop q35's own watchdog: newer libvirts write it, older ones refuse it although their QEMU has it."""
    for devices in domain.findall("devices"):
        for watchdog in devices.findall("watchdog[@model='itco']"):
            devices.remove(watchdog)


def replace_prefix(domain: ET.Element, old: str, new: str) -> None:
    """Replace the directory ``old`` by ``new`` in the paths of disks and of the files below them."""
    for source in domain.findall("devices/disk//source"):
        path = source.get("file", "")
        if path.startswith(f"{old}/"):
            source.set("file", new + path[len(old) :])
