# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters for what the steps of a play with machines and images need of each other."""

from __future__ import annotations

import typing as t

from ansible_collections.virtuoso.grid.plugins.plugin_utils._later import of_room

_MIGRATION = {
    **of_room("_migration.once", migrate_end="end"),
    **of_room(
        "_migration.plan",
        migrate_asked="asked",
        migrate_by_host="by_host",
        migrate_host="host_entry",
        migrate_moves="moves",
        migrate_placed="placed",
        migrate_plan="plan",
        migrate_settled="settled",
        migrate_speechless="speechless",
        migrate_still="still",
        migrate_to_place="to_place",
        migrate_unsettled="unsettled",
        migrate_waited="waited",
    ),
    **of_room(
        "_migration.steps",
        migrate_advance="advance",
        migrate_arrived="arrived",
        migrate_entries="entries",
        migrate_foretold="foretold",
        migrate_images="images",
        migrate_involved="involved",
        migrate_outcome="outcome",
        migrate_waves="waves",
        migrate_without_image="without_image",
    ),
    **of_room(
        "_migration.forwarding",
        migrate_announced="announced",
        migrate_came_to_rest="came_to_rest",
        migrate_forwarded="forwarded",
        migrate_moved="moved",
        migrate_told="told",
        migrate_untold="untold",
    ),
}


class FilterModule:
    """The names under which Jinja finds them."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Name to function."""
        return {
            **_MIGRATION,
            **of_room("_play.deployment", "order_needs", "provider_share", "settling"),
            **of_room("_play.hosts", "endpoints", "store_hosts"),
            **of_room("_play.images", "image_stores", "image_work"),
            **of_room("_play.paging", "paging_plan"),
            **of_room("_play.rows", "step_rows"),
        }
