# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where hosts have what they know each other by."""

from __future__ import annotations

TLS_DIR = "/etc/pki/qemu"
"""A host's certificate and key, and the authority's certificate, by the names that QEMU gives them; the role
``provider`` makes them."""
