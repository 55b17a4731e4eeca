# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a host keeps its certificate and key."""

from __future__ import annotations

TLS_DIR = "/etc/pki/qemu"
"""Has a host's certificate, its key and the authority's certificate, under the file names that QEMU expects. The role
``provider`` fills it."""
