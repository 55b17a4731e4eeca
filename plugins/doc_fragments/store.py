# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the option that names the store (``_argspec.STORE``)."""

from __future__ import annotations


class ModuleDocFragment:
    """The option ``store``."""

    DOCUMENTATION = r"""
options:
  store:
    description:
      - The database of the information service, the path of an SQLite file or an SQLAlchemy URL.
      - The SQLite file is created at its first use. Only its owner can read it.
      - A URL must not contain a password; give it by E(PGPASSFILE) or a PostgreSQL service file.
    type: str
    required: true
requirements:
  - SQLAlchemy >= 2.0 on the host that runs the module, which is the controller
"""
