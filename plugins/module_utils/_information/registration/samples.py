# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measurements (samples) as they are given to the registration, checked; and what they can be about."""

from __future__ import annotations

import datetime
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store import query, writing
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.spec import shorten

if t.TYPE_CHECKING:
    import sqlalchemy as sa

Row = t.Dict[str, t.Any]


def read_sample(given: t.Any, objects: t.Mapping[str, str]) -> Row:
    """A row of ``sample``. :param objects: uuids of sites, hosts and machines by name, and by themselves.

    :raises GridError: ``invalid_sample``.
    """

    def bad(msg: str) -> GridError:
        return GridError(
            "invalid_sample",
            msg,
            remedy="Give object, metric and value; peer for what lies between two; time as 2026-11-01T12:00:00Z",
        )

    if not isinstance(given, t.Mapping):
        raise bad(f"{shorten(given)} is not a sample")
    row: Row = {"peer": None}
    for field in ("object", "peer"):
        name = given.get(field)
        if name is None and field == "peer":
            continue
        if not isinstance(name, str) or name not in objects:
            raise bad(f"there is no site, host or machine {shorten(name)}")
        row[field] = objects[name]
    row["metric"] = given.get("metric")
    if not isinstance(row["metric"], str) or not row["metric"].isidentifier() or len(row["metric"]) > 32:
        raise bad(f"{shorten(given.get('metric'))} is not a metric")
    try:
        row["value"] = float(given.get("value"))  # type: ignore[arg-type]
        time = str(given.get("time") or writing.now())
        datetime.datetime.strptime(time, "%Y-%m-%dT%H:%M:%SZ")
    except (TypeError, ValueError) as exc:
        raise bad(f"the sample's value or time is wrong: {exc}") from exc
    if not abs(row["value"]) < 1e300:
        raise bad("the sample's value is not a finite number")
    return {**row, "time": time}


def objects_by_name(connection: sa.Connection) -> dict[str, str]:
    """What a sample can be about: uuids of sites and hosts by name, those of hosts too where a site has the name of
    one; and by uuid."""
    found = {**query.sites(connection), **query.host_uuids(connection)}
    sites = query.sites(connection)
    # A site and its only host often have one name: latency lies between sites.
    return {**found, **sites, **{uuid: uuid for uuid in (*found.values(), *sites.values())}}
