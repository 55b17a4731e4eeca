# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measurements (samples) as the option ``samples`` gives them, checked; and the objects that they can be about."""

from __future__ import annotations

import datetime
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store import query, writing
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store.records import SampleRow
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.spec import shorten

if t.TYPE_CHECKING:
    import sqlalchemy as sa


def _invalid(msg: str) -> GridError:
    return GridError(
        "invalid_sample",
        msg,
        remedy="Give object, metric and value; peer for what lies between two; time as 2026-11-01T12:00:00Z",
    )


def _object(name: object, objects: t.Mapping[str, str]) -> str:
    if not isinstance(name, str) or name not in objects:
        raise _invalid(f"there is no site, host or machine {shorten(name)}")
    return objects[name]


def read_sample(given: object, objects: t.Mapping[str, str]) -> SampleRow:
    """A row of ``sample``.

    :param objects: uuids of sites, hosts and machines, by name and by uuid.
    :raises GridError: ``invalid_sample``.
    """
    if not isinstance(given, t.Mapping):
        raise _invalid(f"{shorten(given)} is not a sample")
    about = _object(given.get("object"), objects)
    peer = None if given.get("peer") is None else _object(given["peer"], objects)
    metric = given.get("metric")
    if not isinstance(metric, str) or not metric.isidentifier() or len(metric) > 32:
        raise _invalid(f"{shorten(metric)} is not a metric")
    try:
        value = float(given.get("value"))  # type: ignore[arg-type]  # None is a TypeError, caught below
        time = str(given.get("time") or writing.now())
        datetime.datetime.strptime(time, "%Y-%m-%dT%H:%M:%SZ")
    except (TypeError, ValueError) as exc:
        raise _invalid(f"the sample's value or time is wrong: {exc}") from exc
    if not abs(value) < 1e300:
        raise _invalid("the sample's value is not a finite number")
    return {"object": about, "peer": peer, "metric": metric, "time": time, "value": value}


def objects_by_name(connection: sa.Connection) -> dict[str, str]:
    """The uuids of sites and hosts, by name and by uuid. A name that both have is the site's.

    A site and its only host often have one name, and latency lies between sites.
    """
    hosts, sites = query.host_uuids(connection), query.sites(connection)
    return {**hosts, **sites, **{uuid: uuid for uuid in (*hosts.values(), *sites.values())}}
