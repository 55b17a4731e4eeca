# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the options in C(_argspec.STORE)."""

from __future__ import annotations


class ModuleDocFragment:
    """Where the information service keeps its rows."""

    DOCUMENTATION = r"""
options:
  store:
    description:
      - The information service's database, a path of an SQLite file or an SQLAlchemy URL.
      - The SQLite file is made at its first use, readable by its owner only.
      - A URL must not contain a password; give it by E(PGPASSFILE) or a PostgreSQL service file.
    type: str
    required: true
requirements:
  - SQLAlchemy >= 2.0 on the host that runs the module, which is the controller
"""
