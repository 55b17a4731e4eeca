# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What no inventory plugin can beat: hands over hosts that are ready in a file, and does nothing else."""

from __future__ import annotations

DOCUMENTATION = r"""
name: floor
short_description: Hosts that are ready in a file
description: Reads a JSON list of names, groups and variables, and adds them by the inventory's own methods.
options: {}
"""

import json

from ansible.plugins.inventory import BaseInventoryPlugin


class InventoryModule(BaseInventoryPlugin):
    """Adds what is in the file."""

    NAME = "floor"

    def verify_file(self, path):
        """Whether the file is one of this plugin's."""
        return path.endswith(".floor.json")

    def parse(self, inventory, loader, path, cache=True):
        """Add the hosts."""
        super().parse(inventory, loader, path, cache)
        with open(path, encoding="utf-8") as file:
            entries = json.load(file)
        for entry in entries:
            name = entry["name"]
            inventory.add_host(name)
            for group in entry["groups"]:
                inventory.add_child(inventory.add_group(group), name)
            for variable, value in entry["variables"].items():
                inventory.set_variable(name, variable, value)
