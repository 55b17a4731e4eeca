# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller half of the module ``image``: its progress on the terminal."""

from __future__ import annotations

from ansible_collections.virtuoso.grid.plugins.plugin_utils._progress_action import ProgressAction


class ActionModule(ProgressAction):
    """The module with its progress."""

    MODULE = "virtuoso.grid.image"
