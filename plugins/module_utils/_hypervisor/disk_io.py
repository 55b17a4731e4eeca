# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a disk may read and write at most in a second, in its XML element and for libvirt (pure)."""

from __future__ import annotations

import typing as t
import xml.etree.ElementTree as ET

Limits = t.Mapping[str, int]

TAGS = {
    "read_bytes": "read_bytes_sec",
    "write_bytes": "write_bytes_sec",
    "read_iops": "read_iops_sec",
    "write_iops": "write_iops_sec",
}
"""The limits, and how libvirt calls them."""


def read(disk: ET.Element | None) -> dict[str, int] | None:
    """The limits of a disk, ``None`` where it has none; 0 is none."""
    found = {field: int(disk.findtext(f"iotune/{tag}", "0")) for field, tag in TAGS.items()} if disk is not None else {}
    return {field: value for field, value in found.items() if value} or None


def put(disk: ET.Element | None, limits: Limits | None) -> None:
    """Set the limits, and lift those that are not named; what else is set there stays."""
    tune = disk.find("iotune") if disk is not None else None
    if disk is None or (tune is None and not limits):
        return
    if tune is None:
        tune = ET.SubElement(disk, "iotune")
    for field, tag in TAGS.items():
        for old in tune.findall(tag):
            tune.remove(old)
        if limits and limits.get(field):
            ET.SubElement(tune, tag).text = str(limits[field])
    if len(tune) == 0:
        disk.remove(tune)


def parameters(limits: Limits | None) -> dict[str, int]:
    """The same for ``virDomainSetBlockIoTune``, where 0 lifts a limit."""
    return {tag: (limits or {}).get(field, 0) for field, tag in TAGS.items()}


def told(parameters_there: t.Mapping[str, t.Any]) -> dict[str, int] | None:
    """The limits among what ``virDomainGetBlockIoTune`` returned, ``None`` where there is none."""
    found = {field: int(parameters_there.get(tag, 0)) for field, tag in TAGS.items()}
    return {field: value for field, value in found.items() if value} or None
