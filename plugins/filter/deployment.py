# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters for what the steps of a play with machines and images need of each other."""

from __future__ import annotations

import typing as t

from ansible_collections.virtuoso.grid.plugins.plugin_utils._later import of_room


class FilterModule:
    """The names under which Jinja finds them."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Name to function."""
        return {
            **of_room("_play.cards", "public_key"),
            **of_room("_play.deployment", "images_found", "order_needs", "provider_share", "settling"),
            **of_room("_play.hosts", "endpoints", "store_hosts"),
            **of_room("_play.images", "image_stores", "image_work"),
            **of_room("_play.paging", "paging_plan"),
            **of_room("_play.ready", "awaited", "with_address"),
            **of_room("_play.rows", "step_rows"),
        }
