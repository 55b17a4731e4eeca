# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One registration as a whole, in one transaction: for the module of that name, and for what runs on the controller
anyway."""

from __future__ import annotations

import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._information.registration.changes import Registration
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store.database import Store
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store.networks import Overlay


def register(
    store: str, seen: t.Mapping[str, t.Any], *, check_mode: bool = False, directory: str | None = None
) -> dict[str, t.Any]:
    """Write what was seen; what the module ``registration`` returns.

    :param store: path or URL.
    :param seen: the module's options; those left out are empty.
    :param directory: what a relative path is relative to.
    :raises GridError: of the store as a whole; entries that can't be written are rows with ``failed``.
    """
    where = Store(store, directory=directory)
    with where.reading(empty_if_missing=True) if check_mode else where.writing() as connection:
        registration = Registration(connection)
        machines, complete = seen.get("machines") or [], seen.get("complete") or []
        result = {
            "providers": registration.see_hosts(seen.get("providers") or []),
            "machines": registration.see_machines(machines),
            **registration.see_all(complete, machines),
            "samples": registration.see_samples(seen.get("samples") or []),
            "gone": registration.forget(seen.get("gone") or []),
        }
        overlay = Overlay(connection, [change.name for change in registration.host_changes])
        if seen.get("networks") is not None:
            result["networks"] = overlay.see_networks(seen["networks"])
        if seen.get("links") is not None:
            result["links"] = overlay.see_links(seen["links"])
        if not check_mode:
            registration.write()
            overlay.write()
    changed = any(item["changed"] for batch in result.values() for item in batch)
    return {"changed": changed, **result, "diff": registration.diffs()}
