# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decides the steps to take, delete or revert to a machine's snapshot (pure).

A snapshot has three parts: one within the disk's file, a file with the memory if that is kept, and libvirt's entry,
which is written last. Parts without an entry were left by a run that was killed.
"""

from __future__ import annotations

import re
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._names import shorten

STATES = ("present", "absent", "reverted")

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}", re.ASCII)


class Seen(t.NamedTuple):
    """What there is of a machine: its power state, whether it pages, and the names of the snapshots that libvirt lists,
    that its disk has, and whose memory is kept."""

    state: str
    pages: bool
    listed: t.FrozenSet[str]
    inner: t.FrozenSet[str]
    memory: t.FrozenSet[str]


class Step(t.NamedTuple):
    """``take``, ``drop`` or ``revert``, and the snapshot's name."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


def is_name(value: object) -> bool:
    """Whether a snapshot of the collection can have this name, which becomes a file's name."""
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def check_name(value: object) -> str:
    """``value``, if it is a snapshot's name. :raises GridError: ``invalid_snapshot``."""
    if not isinstance(value, str) or not is_name(value):
        raise GridError(
            "invalid_snapshot",
            f"{shorten(value)} is not a name of a snapshot",
            remedy="Give 1 to 63 of the letters a to z, large or small, digits and . _ -, and none of . - first",
        )
    return value


def _refuse(seen: Seen, what: str) -> None:
    if seen.pages:
        raise GridError(
            "machine_pages",
            f"the machine's image isn't all here yet, so {what}",
            remedy="Run virtuoso.grid.deploy, which brings the image, then run again",
        )
    if seen.state == "hibernated":
        raise GridError(
            "machine_hibernated",
            f"the memory of a hibernated machine knows the disk as it is, so {what}",
            remedy="Resume the machine first: virtuoso.grid.power with state running",
        )


def _present(seen: Seen, name: str, memory: bool) -> list[Step]:
    if name in seen.listed and name in seen.inner:
        if memory and name not in seen.memory:
            raise GridError(
                "snapshot_differs",
                f"the snapshot {name} is there, without the memory that is asked for",
                remedy="Delete it first, state absent; or take one of another name",
            )
        return []
    _refuse(seen, "no snapshot can be taken")
    if memory and seen.state == "stopped":
        raise GridError(
            "no_memory_to_keep", "the machine is off: it has no memory that could be kept", remedy="Leave memory out"
        )
    left = [Step("drop", name)] if name in seen.listed | seen.inner | seen.memory else []
    return [*left, Step("take", name)]


def decide(state: str, seen: Seen, name: t.Optional[str], memory: bool = False) -> list[Step]:
    """The steps for a machine's snapshot ``name``; for all its snapshots with ``absent`` and no name.

    :raises GridError: ``snapshot_unknown``, ``snapshot_differs``, ``machine_hibernated``, ``machine_pages``,
        ``no_memory_to_keep``.
    """
    there = seen.listed | seen.inner | seen.memory
    if state == "absent":
        gone = sorted(there if name is None else there & {name})
        if gone:
            _refuse(seen._replace(pages=False), "no snapshot can be deleted")
        return [Step("drop", each) for each in gone]
    name = t.cast(str, name)
    if state == "present":
        return _present(seen, name, memory)
    if name not in seen.listed or name not in seen.inner:
        raise GridError(
            "snapshot_unknown",
            f"the machine has no snapshot {name}; it has {', '.join(sorted(seen.listed & seen.inner)) or 'none'}",
            remedy="Name one of these",
            known=sorted(seen.listed & seen.inner),
        )
    return [Step("revert", name)]


def end(steps: t.Sequence[Step], seen: Seen, awake: t.Optional[bool]) -> str:
    """The machine's power state afterwards.

    :param awake: whether the guest ran in the snapshot that is reverted to; ``None`` for one without memory.
    """
    if not any(step.kind == "revert" for step in steps):
        return seen.state
    if awake is not None:
        return "running" if awake else "paused"
    return "stopped" if seen.state == "hibernated" else seen.state
