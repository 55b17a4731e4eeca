# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation shared by all modules: what check mode and diff mode mean here."""

from __future__ import annotations


class ModuleDocFragment:
    """The attributes of a module."""

    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in check mode and return what it would change, without changing it.
  diff_mode:
    description: Returns what changes, or would change in check mode, when run with C(--diff).
"""
