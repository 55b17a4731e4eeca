# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The memory of a machine that sleeps on its journey, and the note that says so."""

from __future__ import annotations

import os

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor import domain_xml
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core import memory
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.files import hibernate
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.files.disk import Depot
from ansible_collections.virtuoso.grid.plugins.module_utils._migration.host import arriving, looking, sleeping

UUID = "5f0d5b1e-6c1c-4f3a-9c0f-2d6a1f0e8b11"


@pytest.fixture(name="depot")
def _depot(tmp_path):
    depot = Depot(str(tmp_path))
    os.makedirs(depot.machine(UUID))
    with open(depot.disk(UUID), "wb") as file:
        file.write(b"disk")
    return depot


def kept(depot, **changes):
    """A memory that fits the machine."""
    head = {
        "uuid": UUID,
        "name": "web1",
        "generation": 0,
        "disk": hibernate.disk_identity(depot.disk(UUID)),
        "compressed": 0,
        **changes,
    }
    with open(os.path.join(depot.machine(UUID), memory.MEMORY), "wb") as file:
        file.write(memory.pack(head))


def test_a_step_that_is_given_again_knows_the_disk_of_a_marked_machine(depot):
    kept(depot)
    for name in (depot.disk(UUID), depot.disk(UUID) + ".moving"):
        disk = f"<disk><source file='{name}'/><target dev='{domain_xml.ROOT_DISK}'/></disk>"
        tree = domain_xml.parse(f"<domain><devices>{disk}</devices></domain>")
        sleeping._check(depot, UUID, tree)  # pylint: disable=protected-access


@pytest.mark.parametrize(
    ("text", "was"),
    [
        (None, None),
        ('{"was": "running"}', "running"),
        ('{"was": "paused"}', "paused"),
        ("{", "running"),
        ("[]", "running"),
    ],
)
def test_what_a_machine_was_before_it_was_put_to_sleep(depot, text, was):
    if text is not None:
        with open(os.path.join(depot.machine(UUID), memory.JOURNEY), "w", encoding="utf-8") as file:
            file.write(text)
    assert sleeping.slept(depot, UUID) == was


@pytest.mark.parametrize(
    ("start", "was", "told"),
    [
        (True, "running", "running"),
        (True, "hibernated", "running"),
        (True, "paused", "paused"),
        (False, "stopped", None),
    ],
)
def test_what_came_says_whether_it_is_to_be_woken(depot, start, was, told):
    entry = {"generation": 2, "source": "p1", "attempt": "a", "start": start, "was": was}
    arriving._note(depot.machine(UUID), arriving._told(entry), True)  # pylint: disable=protected-access
    assert looking.incoming(depot, UUID) == {
        "generation": 2,
        "source": "p1",
        "attempt": "a",
        "complete": True,
        "was": told,
    }


class Domain:
    """A domain that is paused after its memory was restored."""

    def __init__(self, depot):
        self.depot, self.resumed = depot, False

    def UUIDString(self):  # pylint: disable=invalid-name
        return UUID

    def isActive(self):  # pylint: disable=invalid-name
        return True

    def state(self):
        return [sleeping.libvirt.VIR_DOMAIN_PAUSED, 0]

    def resume(self):
        assert not hibernate.present(self.depot, UUID), "a guest that runs has left its memory's file behind"
        self.resumed = True


@pytest.mark.parametrize(("was", "resumed"), [("running", True), ("paused", False), (None, False)])
def test_whoever_was_killed_between_restoring_and_resuming_is_finished(depot, was, resumed):
    kept(depot)
    domain = Domain(depot)
    assert sleeping.wake(None, depot, domain, was) is resumed and domain.resumed is resumed
    assert hibernate.present(depot, UUID) is (was is None)
