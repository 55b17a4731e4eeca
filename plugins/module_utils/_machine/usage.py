# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What machines get of the processors, beside what they may have: CPU time over a window."""

from __future__ import annotations

import contextlib
import threading
import time
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.connection import libvirt

Facts = t.Dict[str, t.Any]
Sample = t.Tuple[float, int]


def share(first: Sample, second: Sample) -> float | None:
    """Percent of one processor between two samples of (seconds, CPU time in nanoseconds) (pure); ``None`` where it began anew between."""
    seconds, used = second[0] - first[0], second[1] - first[1]
    return round(used / seconds / 1e7, 1) if seconds > 0 and used >= 0 else None


def ceiling(vcpus: int, limit: t.Mapping[str, int] | None) -> float:
    """The most that a machine may have, in percent of one processor (pure)."""
    return round(100.0 * vcpus * (min(1.0, limit["quota"] / limit["period"]) if limit else 1.0), 1)


def _sample(domain: t.Any) -> Sample | None:
    with contextlib.suppress(libvirt.libvirtError):
        # CPU time of the whole machine, what QEMU needs for itself as well
        used = domain.info()[4]
        return time.monotonic(), used
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
        facts["usage"] = {
            "window": round(after[0] - before[0], 3),
            "cpu": share(before, after),
            "cpu_ceiling": ceiling(facts["vcpus"], facts["cpu_limit"]),
        }
