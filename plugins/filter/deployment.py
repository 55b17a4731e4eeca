# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters that the collection's own roles use between the steps of a deployment."""

from __future__ import annotations

import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.plugin_utils._later import Later, of_room


class Told(Later):
    """The filter's answer, or its typed error as a row of a report: a filter's own would lose the code."""

    def __call__(self, *arguments: t.Any, **named: t.Any) -> t.Any:
        try:
            return super().__call__(*arguments, **named)
        except GridError as exc:
            return {"name": exc.object or "overlay", "changed": False, **exc.result()}


class FilterModule:
    """The names under which Jinja finds them."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Name to function."""
        return {
            **of_room(
                "_play.deployment",
                "asides",
                "by_source",
                "identities",
                "pager_exports",
                "placement_entries",
                "provider_share",
                "settling",
                "sources",
                "step_rows",
                "to_page",
                "unserved",
                "wanted_images",
            ),
            **of_room("_play.images", "image_refusal", "image_rows", "image_work", "layers_in_use", "to_publish"),
            **of_room("_overlay.plan.guests", "overlay_lacks", "overlay_machines", overlay_mtu="with_mtu"),
            **of_room("_overlay.plan.model", network_bridge="bridge_name"),
            **of_room("_overlay.plan.matrix", overlay_traffic="traffic_rows"),
            **of_room("_overlay.plan.phases", overlay_keys="with_keys"),
            "overlay_plan": Told("_overlay.plan.phases", "overlay_plan"),
        }
