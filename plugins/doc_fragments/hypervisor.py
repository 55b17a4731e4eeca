# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the options in C(_argspec.HYPERVISOR)."""

from __future__ import annotations


class ModuleDocFragment:
    """How a host's libvirt is reached."""

    DOCUMENTATION = r"""
options:
  uri:
    description: Connection URI of the libvirt daemon on the host, as virsh takes it.
    type: str
    default: qemu:///system
requirements:
  - python3-libvirt
"""
