# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What effects on a machine work with: the machine, its domain, and what all machines of a run share."""

from __future__ import annotations

import dataclasses
import threading
import typing as t
import xml.etree.ElementTree as ET

from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.api import Domain
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.connection import Hypervisor
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.records import Wanted
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.files import disk


class Starts:
    """Lets guests run only when no other machine is being started.

    A guest's boot keeps a processor busy for seconds, so that the first ones would slow down the start of all others.
    So each is started paused, and resumed as soon as none is left to start. A run that is killed in between leaves it
    paused, and the next run resumes it.
    """

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._coming = 0

    def announce(self) -> None:
        """One more machine is about to be started."""
        with self._change:
            self._coming += 1

    def over(self) -> None:
        """It is started, or won't be."""
        with self._change:
            self._coming -= 1
            self._change.notify_all()

    def wait(self) -> None:
        """Return when none is left to start."""
        with self._change:
            self._change.wait_for(lambda: self._coming == 0)


@dataclasses.dataclass
class Host:
    """What all machines of a run share. ``virtualization`` is kvm or qemu, ``timeout`` seconds; ``force`` says whether
    guests that don't shut down or reboot in time are forced to."""

    hypervisor: Hypervisor
    depot: disk.Depot
    overlays: disk.Overlays
    virtualization: str
    machine_type: str
    timeout: float
    force: bool
    slots: threading.Semaphore
    """Held during work that keeps the host's processors busy."""
    starts: Starts = dataclasses.field(default_factory=Starts)


@dataclasses.dataclass(eq=False)
class Subject:
    """One machine that a run works on. Not thread-safe; each machine has its own.

    ``wanted`` is ``None`` where only the machine is named; ``domain`` and ``tree``, its definition, where it isn't
    defined.
    """

    host: Host
    uuid: str
    wanted: t.Optional[Wanted]
    domain: t.Optional[Domain]
    tree: t.Optional[ET.Element]


def domain_of(subject: Subject) -> Domain:
    """The domain of a machine that is known to be defined."""
    if subject.domain is None:
        raise ValueError("the machine is not defined")
    return subject.domain


def tree_of(subject: Subject) -> ET.Element:
    """The definition of a machine that is known to be defined."""
    if subject.tree is None:
        raise ValueError("the machine is not defined")
    return subject.tree


def wanted_of(subject: Subject) -> Wanted:
    """What a machine should be, where the run was given that."""
    if subject.wanted is None:
        raise ValueError("the run was not given what the machine should be")
    return subject.wanted
