# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is there of one machine (pure)."""

from __future__ import annotations

import dataclasses
import typing as t

Model = t.Dict[str, t.Any]

KEPT, SAVED = "kept", "saved"


@dataclasses.dataclass(frozen=True)
class Disk:
    """A qcow2 file: virtual size in bytes, and the path of what it is an overlay on."""

    size: int
    backing: t.Optional[str] = None


@dataclasses.dataclass(frozen=True)
class Observed:
    """What is there of one machine. ``config`` is ``None`` where no domain is defined, ``live`` where it doesn't run.

    ``missing`` is the digest of a layer that the disk lies on and that isn't here; ``leftover`` tells of another disk
    beside it; ``memory`` of a kept memory, KEPT or SAVED (whole, and not compressed yet): of a machine that is off it
    makes a hibernated one; ``incoming`` that its files came, or are coming, from another host and don't count yet;
    ``agent`` that its guest's agent answers.
    """

    state: str = "absent"
    config: t.Optional[Model] = None
    live: t.Optional[Model] = None
    metadata: t.Optional[Model] = None
    disk: t.Optional[Disk] = None
    seed: bool = False
    files: bool = False
    missing: t.Optional[str] = None
    leftover: bool = False
    memory: t.Optional[str] = None
    incoming: bool = False
    agent: bool = False
