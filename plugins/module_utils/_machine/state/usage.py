# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What machines use of their providers' resources (CPU time and disk traffic in a window), what was ordered, and what
libvirt has set."""

from __future__ import annotations

import contextlib
import threading
import time
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor import disk_io, domain_xml
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.api import Domain
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.connection import libvirt
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.records import CpuLimit, DomainModel, Metadata
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.records import Facts, GivenShare, OrderedShare

Sample = t.Tuple[float, int, t.Tuple[int, int]]

# libvirt's greatest quota, which limits nothing
_NO_QUOTA = 17592186044415


def share(first: t.Tuple[float, int], second: t.Tuple[float, int]) -> float | None:
    """Percent of one processor between two samples of (seconds, CPU time in nanoseconds) (pure); ``None`` where the
    counter was reset in between."""
    seconds, used = second[0] - first[0], second[1] - first[1]
    return round(used / seconds / 1e7, 1) if seconds > 0 and used >= 0 else None


def ceiling(vcpus: int, limit: CpuLimit | None) -> float:
    """The most that a machine may use, in percent of one processor (pure)."""
    return round(100.0 * vcpus * (min(1.0, limit["quota"] / limit["period"]) if limit else 1.0), 1)


def rate(first: t.Sequence[int], second: t.Sequence[int], seconds: float) -> dict[str, int] | None:
    """Bytes a second that a disk was read and written, of (read, written) at two times (pure); ``None`` where the
    counters were reset in between."""
    done = [after - before for before, after in zip(first, second)]
    return {"read": int(done[0] / seconds), "write": int(done[1] / seconds)} if seconds > 0 and min(done) >= 0 else None


def ordered(values: Metadata, config: DomainModel) -> OrderedShare:
    """What was ordered of a provider's resources (pure).

    :param values: the machine's metadata.
    :param config: what it has at its next start.
    """
    wishes = values.get("wishes") or {}
    return {"vcpus": config["vcpus"], "memory": config["memory"], **wishes.get("performance", {})}


def given(domain: Domain, live: DomainModel | None) -> GivenShare | None:
    """What libvirt has set in the kernel and QEMU for a running machine; ``None`` for one that doesn't run. What can't
    be read is left out."""
    if live is None:
        return None
    facts: GivenShare = {"vcpus": live["vcpus"], "memory": live["memory"]}
    with contextlib.suppress(libvirt.libvirtError):
        scheduler = domain.schedulerParametersFlags(libvirt.VIR_DOMAIN_AFFECT_LIVE)
        facts["cpu_shares"] = scheduler.get("cpu_shares")
        quota = scheduler.get("vcpu_quota", -1)
        limit: CpuLimit = {"period": scheduler.get("vcpu_period", 0), "quota": quota}
        facts["cpu_limit"] = limit if 0 < quota < _NO_QUOTA else None
    with contextlib.suppress(libvirt.libvirtError):
        facts["disk_io"] = disk_io.of_parameters(
            domain.blockIoTune(domain_xml.ROOT_DISK, libvirt.VIR_DOMAIN_AFFECT_LIVE)
        )
    return facts


def _sample(domain: Domain) -> Sample | None:
    with contextlib.suppress(libvirt.libvirtError):
        # CPU time of the whole machine, with QEMU's own work
        used, disk = domain.info()[4], domain.blockStats(domain_xml.ROOT_DISK)
        return time.monotonic(), used, (disk[1], disk[3])
    return None


def watch(domains: t.Mapping[str, Domain], found: t.Mapping[str, Facts], window: float) -> None:
    """Write ``usage`` into the facts of the running machines. All are watched in the same window.

    :param domains: by uuid; so are the facts.
    :param window: seconds.
    """
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
