# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters that the collection's own roles use where machines are on networks that are tied to homes."""

from __future__ import annotations

import typing as t

from ansible_collections.virtuoso.grid.plugins.plugin_utils._later import of_room


class FilterModule:
    """The names under which Jinja finds them."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Name to function."""
        return {
            **of_room("_play.homes", "home_leases", "home_machines", "home_refusals"),
            **of_room("_overlay.host.interfaces", network_cable="cable"),
        }
