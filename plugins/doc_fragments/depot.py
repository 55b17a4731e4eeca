# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the options in C(_argspec.DEPOT)."""

from __future__ import annotations


class ModuleDocFragment:
    """Where a host keeps images and disks."""

    DOCUMENTATION = r"""
options:
  path:
    description:
      - Directory on the host for images (C(images/)) and machines' disks (C(machines/)).
      - The role R(virtuoso.grid.provider,ansible_collections.virtuoso.grid.provider_role) makes it.
    type: path
    default: /var/lib/virtuoso
"""
