# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters that the collection's own roles use where machines are on networks that are tied to homes."""

from __future__ import annotations

import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._home_play import home_leases, home_machines, home_refusals
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.interfaces import cable


class FilterModule:
    """The names under which Jinja finds them."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Name to function."""
        return {"home_leases": home_leases, "home_machines": home_machines, "home_refusals": home_refusals, "network_cable": cable}
