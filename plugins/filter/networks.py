# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters for networks and the machines on them."""

from __future__ import annotations

import typing as t

from ansible_collections.virtuoso.grid.plugins.plugin_utils._later import of_room


class FilterModule:
    """The names under which Jinja finds them."""

    def filters(self) -> dict[str, t.Callable[..., object]]:
        """Name to function."""
        return {
            **of_room("_play.networks", "machine_networks", "network_interfaces", "overlay_lacks"),
            **of_room("_play.planning", overlay_plan="plan_networks"),
            **of_room("_overlay.plan.matrix", overlay_traffic="traffic_rows"),
            **of_room("_overlay.plan.phases", overlay_keys="with_keys"),
        }
