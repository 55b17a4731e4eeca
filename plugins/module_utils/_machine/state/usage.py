# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What machines get of their providers, beside what was ordered and what libvirt has: CPU time and disk traffic over a
window."""

from __future__ import annotations

import contextlib
import threading
import time
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor import disk_io, domain_xml
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.connection import libvirt

Facts = t.Dict[str, t.Any]
Sample = t.Tuple[float, int, t.Tuple[int, int]]

# libvirt's greatest quota, which limits nothing
_NO_QUOTA = 17592186044415


def share(first: t.Tuple[float, int], second: t.Tuple[float, int]) -> float | None:
    """Percent of one processor between two samples of (seconds, CPU time in nanoseconds) (pure); ``None`` where it
    began anew between."""
    seconds, used = second[0] - first[0], second[1] - first[1]
    return round(used / seconds / 1e7, 1) if seconds > 0 and used >= 0 else None


def ceiling(vcpus: int, limit: t.Mapping[str, int] | None) -> float:
    """The most that a machine may have, in percent of one processor (pure)."""
    return round(100.0 * vcpus * (min(1.0, limit["quota"] / limit["period"]) if limit else 1.0), 1)


def rate(first: t.Sequence[int], second: t.Sequence[int], seconds: float) -> dict[str, int] | None:
    """Bytes a second that a disk was read and written, of (read, written) at two times (pure); ``None`` where it began
    anew between."""
    done = [after - before for before, after in zip(first, second)]
    return {"read": int(done[0] / seconds), "write": int(done[1] / seconds)} if seconds > 0 and min(done) >= 0 else None


def ordered(values: t.Mapping[str, t.Any], config: t.Mapping[str, t.Any]) -> Facts:
    """What of a provider's resources a machine was ordered to have (pure).
    :param values: its metadata.
    :param config: what it has at its next start."""
    return {**{key: config[key] for key in ("vcpus", "memory")}, **(values.get("wishes") or {}).get("performance", {})}


def given(domain: t.Any, live: t.Mapping[str, t.Any] | None) -> Facts | None:
    """What libvirt has told the kernel and QEMU of a running machine; ``None`` of one that doesn't run. What can't be
    told is left out."""
    if live is None:
        return None
    facts: Facts = {key: live[key] for key in ("vcpus", "memory")}
    with contextlib.suppress(libvirt.libvirtError):
        scheduler = domain.schedulerParametersFlags(libvirt.VIR_DOMAIN_AFFECT_LIVE)
        facts["cpu_shares"] = scheduler.get("cpu_shares")
        quota = scheduler.get("vcpu_quota", -1)
        facts["cpu_limit"] = {"period": scheduler.get("vcpu_period"), "quota": quota} if 0 < quota < _NO_QUOTA else None
    with contextlib.suppress(libvirt.libvirtError):
        facts["disk_io"] = disk_io.of_parameters(
            domain.blockIoTune(domain_xml.ROOT_DISK, libvirt.VIR_DOMAIN_AFFECT_LIVE)
        )
    return facts


def _sample(domain: t.Any) -> Sample | None:
    with contextlib.suppress(libvirt.libvirtError):
        # CPU time of the whole machine, what QEMU needs for itself as well
        used, disk = domain.info()[4], domain.blockStats(domain_xml.ROOT_DISK)
        return time.monotonic(), used, (disk[1], disk[3])
    return None


def watch(domains: t.Mapping[str, t.Any], found: t.Mapping[str, Facts], window: float) -> None:
    """Write ``usage`` into the facts of the running machines; all are watched in the same window."""
    first = {uuid: _sample(domain) for uuid, domain in domains.items()}
    if first:
        threading.Event().wait(window)
    for uuid, domain in domains.items():
        before, after, facts = first[uuid], _sample(domain), found[uuid]
        if before is None or after is None:
            continue
        seconds = after[0] - before[0]
        facts["usage"] = {
            "window": round(seconds, 3),
            "cpu": share(before[:2], after[:2]),
            "cpu_ceiling": ceiling(facts["vcpus"], facts["cpu_limit"]),
            "disk": rate(before[2], after[2], seconds),
        }
