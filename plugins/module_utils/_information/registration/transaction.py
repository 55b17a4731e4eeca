# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One registration as a whole, in one transaction: what the module ``registration`` does."""

from __future__ import annotations

import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._information.registration.changes import Registration
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store.database import Store
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store.networks import (
    LinkGiven,
    NetworkGiven,
    Overlay,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._run import Result


class Seen(t.TypedDict, total=False):
    """The options of the module ``registration``; one that is left out is empty."""

    providers: list[object]
    machines: list[object]
    complete: list[str]  # names of providers of which all machines are listed
    samples: list[object]
    gone: list[str]  # uuids of machines that were retired
    networks: list[NetworkGiven] | None
    links: list[LinkGiven] | None
    inventory: list[str]  # names that a machine which the store doesn't know can't have


def register(store: str, seen: Seen, *, check_mode: bool = False, directory: str | None = None) -> Result:
    """Write what was seen. Returns what the module ``registration`` returns.

    :param store: path or URL.
    :param directory: what a relative path is relative to.
    :raises GridError: errors of the store as a whole. An entry that can't be written has ``failed`` in its result.
    """
    where = Store(store, directory=directory)
    with where.reading(empty_if_missing=True) if check_mode else where.writing() as connection:
        registration = Registration(connection, seen.get("inventory") or ())
        machines, complete = seen.get("machines") or [], seen.get("complete") or []
        result: dict[str, list[Result]] = {
            "providers": registration.see_hosts(seen.get("providers") or []),
            "machines": registration.see_machines(machines),
            **registration.see_all(complete, machines),
            "samples": registration.see_samples(seen.get("samples") or []),
            "gone": registration.forget(seen.get("gone") or []),
        }
        overlay = Overlay(connection, [change.name for change in registration.host_changes])
        networks, links = seen.get("networks"), seen.get("links")
        if networks is not None:
            result["networks"] = overlay.see_networks(networks)
        if links is not None:
            result["links"] = overlay.see_links(links)
        if not check_mode:
            registration.write()
            overlay.write()
    changed = any(item["changed"] for batch in result.values() for item in batch)
    return {"changed": changed, **result, "diff": registration.diffs()}
