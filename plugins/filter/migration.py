# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters that the role ``migrate`` uses between its tasks."""

from __future__ import annotations

import typing as t

from ansible_collections.virtuoso.grid.plugins.plugin_utils._later import of_room


class FilterModule:
    """The names under which Jinja finds them."""

    def filters(self) -> dict[str, t.Callable[..., object]]:
        """Name to function."""
        return dict(
            of_room(
                "_migration.filters",
                migrate_arrived="arrived",
                migrate_forwarded="forwarded",
                migrate_moves="moves",
                migrate_notices="notices",
                migrate_placed="placed",
                migrate_plan="decide",
                migrate_settled="settled",
                migrate_to_place="to_place",
                migrate_unsettled="unsettled",
            )
        )
