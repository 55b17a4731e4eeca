# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What there is of one machine on a host: the record that the decisions start from (pure).

``state/observe`` fills it.
"""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.records import MachineModel, Metadata, Moving

KEPT, SAVED = "kept", "saved"
"""A hibernated machine's memory is compressed; or whole as libvirt saved it, and not compressed yet."""


@dataclasses.dataclass(frozen=True)
class Disk:
    """A qcow2 file: virtual size in bytes, and the path of what it is an overlay on."""

    size: int
    backing: t.Optional[str] = None


@dataclasses.dataclass(frozen=True)
class Observed:
    """What there is of one machine on a host.

    ``config`` is the domain at its next start, ``live`` the running one; ``config`` and ``metadata`` are ``None`` where
    no domain is defined. ``seed`` and ``files`` say whether those are there. ``missing`` is the digest of a layer that
    the disk lies on and that isn't here; ``leftover`` says that another disk is beside it. ``memory`` is KEPT or SAVED:
    it makes a machine that is off a hibernated one. ``incoming`` says that files from another host are here that don't
    count yet, ``agent`` that the guest's agent answers.
    """

    state: str = "absent"
    config: t.Optional[MachineModel] = None
    live: t.Optional[MachineModel] = None
    metadata: t.Optional[Metadata] = None
    disk: t.Optional[Disk] = None
    seed: bool = False
    files: bool = False
    missing: t.Optional[str] = None
    leftover: bool = False
    memory: t.Optional[str] = None
    incoming: bool = False
    agent: bool = False

    @property
    def defined(self) -> tuple[MachineModel, Metadata]:
        """``config`` and ``metadata`` of a machine that is known to be defined."""
        if self.config is None or self.metadata is None:
            raise ValueError("the machine is not defined here")
        return self.config, self.metadata

    @property
    def moving(self) -> Moving | None:
        """The mark of a machine on its way to another host."""
        return self.metadata["moving"] if self.metadata is not None else None
