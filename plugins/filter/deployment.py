# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters that the collection's own roles use between the steps of a deployment."""

from __future__ import annotations

import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._deployment import (
    asides,
    by_source,
    identities,
    pager_exports,
    placement_entries,
    provider_share,
    settling,
    sources,
    step_rows,
    to_page,
    unserved,
    wanted_images,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._image_play import (
    image_refusal,
    image_rows,
    image_work,
    layers_in_use,
    to_publish,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.guests import overlay_lacks, overlay_machines, with_mtu
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.model import bridge_name
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.matrix import traffic_rows
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.plan import overlay_plan, with_keys
from ansible_collections.virtuoso.grid.plugins.module_utils import _migration_forwarding as forwarding
from ansible_collections.virtuoso.grid.plugins.module_utils import _migration_once as once
from ansible_collections.virtuoso.grid.plugins.module_utils import _migration_play as migration
from ansible_collections.virtuoso.grid.plugins.module_utils import _migration_steps as steps


def _told(function: t.Callable[..., t.Any]) -> t.Callable[..., t.Any]:
    """The filter's answer, or its typed error as a row of a report: a filter's own would lose the code."""

    def told(*arguments: t.Any, **named: t.Any) -> t.Any:
        try:
            return function(*arguments, **named)
        except GridError as exc:
            return {"name": exc.object or "overlay", "changed": False, **exc.result()}

    return told


class FilterModule:
    """The names under which Jinja finds them."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Name to function."""
        return {
            "asides": asides,
            "by_source": by_source,
            "identities": identities,
            "migrate_advance": steps.advance,
            "migrate_arrived": steps.arrived,
            "migrate_asked": migration.asked,
            "migrate_by_host": migration.by_host,
            "migrate_end": once.end,
            "migrate_entries": steps.entries,
            "migrate_foretold": steps.foretold,
            "migrate_host": migration.host_entry,
            "migrate_images": steps.images,
            "migrate_involved": steps.involved,
            "migrate_moves": migration.moves,
            "migrate_outcome": steps.outcome,
            "migrate_placed": migration.placed,
            "migrate_plan": migration.plan,
            "migrate_speechless": migration.speechless,
            "migrate_announced": forwarding.announced,
            "migrate_came_to_rest": forwarding.came_to_rest,
            "migrate_forwarded": forwarding.forwarded,
            "migrate_moved": forwarding.moved,
            "migrate_told": forwarding.told,
            "migrate_settled": migration.settled,
            "migrate_still": migration.still,
            "migrate_to_place": migration.to_place,
            "migrate_untold": forwarding.untold,
            "migrate_unsettled": migration.unsettled,
            "migrate_waited": migration.waited,
            "migrate_waves": steps.waves,
            "migrate_without_image": steps.without_image,
            "image_refusal": image_refusal,
            "image_rows": image_rows,
            "image_work": image_work,
            "layers_in_use": layers_in_use,
            "network_bridge": bridge_name,
            "overlay_keys": with_keys,
            "overlay_lacks": overlay_lacks,
            "overlay_machines": overlay_machines,
            "overlay_mtu": with_mtu,
            "overlay_plan": _told(overlay_plan),
            "overlay_traffic": traffic_rows,
            "pager_exports": pager_exports,
            "placement_entries": placement_entries,
            "provider_share": provider_share,
            "settling": settling,
            "sources": sources,
            "step_rows": step_rows,
            "to_page": to_page,
            "to_publish": to_publish,
            "unserved": unserved,
            "wanted_images": wanted_images,
        }
