# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Limits of a disk's reads and writes in a second: in its XML element and as libvirt's parameters (pure)."""

from __future__ import annotations

import typing as t
import xml.etree.ElementTree as ET

from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.api import Values
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.records import DiskLimits

TAGS = {
    "read_bytes": "read_bytes_sec",
    "write_bytes": "write_bytes_sec",
    "read_iops": "read_iops_sec",
    "write_iops": "write_iops_sec",
}
"""The fields of :class:`records.DiskLimits` and libvirt's names for them."""


def _limits(found: t.Mapping[str, int]) -> DiskLimits | None:
    """The limits without those that are 0, which libvirt has for none."""
    return t.cast(DiskLimits, {field: value for field, value in found.items() if value}) or None


def read(disk: ET.Element | None) -> DiskLimits | None:
    """The limits in a disk's element, ``None`` where it has none."""
    if disk is None:
        return None
    return _limits({field: int(disk.findtext(f"iotune/{tag}", "0")) for field, tag in TAGS.items()})


def put(disk: ET.Element | None, limits: DiskLimits | None) -> None:
    """Set the limits in a disk's element and lift those that are left out. What else ``iotune`` has stays."""
    wanted = parameters(limits)
    tune = disk.find("iotune") if disk is not None else None
    if disk is None or (tune is None and not limits):
        return
    if tune is None:
        tune = ET.SubElement(disk, "iotune")
    for tag in TAGS.values():
        for old in tune.findall(tag):
            tune.remove(old)
        if wanted[tag]:
            ET.SubElement(tune, tag).text = str(wanted[tag])
    if len(tune) == 0:
        disk.remove(tune)


def parameters(limits: DiskLimits | None) -> dict[str, int]:
    """The limits for ``virDomainSetBlockIoTune``, where 0 lifts one."""
    given = t.cast("t.Mapping[str, int]", limits or {})
    return {tag: given.get(field, 0) for field, tag in TAGS.items()}


def of_parameters(found: Values) -> DiskLimits | None:
    """The limits among what ``virDomainGetBlockIoTune`` returned, ``None`` where there are none."""
    return _limits({field: int(found.get(tag, 0)) for field, tag in TAGS.items()})
