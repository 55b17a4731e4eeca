# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is plugged in and taken out of a running machine: in which order, and what if its guest doesn't do its part."""

from __future__ import annotations

import contextlib
import threading

import libvirt
import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.life import plugging
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.state import agent

MIB = 2**20
XML = (
    "<domain id='1'><memory>1048576</memory><currentMemory>{memory}</currentMemory><vcpu current='{vcpus}'>4</vcpu>"
    "<devices><memballoon model='virtio'/><memory model='virtio-mem'><target><size>524288</size>"
    "<requested>{requested}</requested></target></memory>{card}</devices></domain>"
)
CARD = (
    "<interface type='network'><mac address='d2:11:00:00:00:01'/><source network='lan'/>"
    "<alias name='ua-net-lan'/></interface>"
)


class Domain:
    """A running domain whose guest does, or doesn't do, what it is asked."""

    def __init__(self, obeys=True, answers=False):
        self.obeys, self.answers = obeys, answers
        self.vcpus, self.memory, self.requested, self.card = 2, 512, 0, CARD
        self.calls = []

    def XMLDesc(self, _flags):
        return XML.format(vcpus=self.vcpus, memory=self.memory * 1024, requested=self.requested * 1024, card=self.card)

    def isActive(self):
        return True

    def agentSetResponseTimeout(self, *_arguments):
        self.calls.append("agent")

    def setVcpusFlags(self, number, flags):
        self.calls.append(("vcpus", number, flags))
        if flags == libvirt.VIR_DOMAIN_AFFECT_LIVE:
            if number < self.vcpus and not self.obeys:
                raise libvirt.libvirtError("unplug timed out")
            self.vcpus = number

    def setMemoryFlags(self, size, _flags):
        self.calls.append(("balloon", size // 1024))
        if self.obeys:
            self.memory = size // 1024 + self.requested

    def updateDeviceFlags(self, text, _flags):
        self.requested = int(text.split('<requested unit="KiB">')[1].split("<")[0]) // 1024
        self.calls.append(("requested", self.requested))

    def attachDeviceFlags(self, text, _flags):
        self.calls.append("attach")
        self.card = text

    def detachDeviceFlags(self, text, _flags):
        assert "ua-net-lan" in text
        self.calls.append("detach")
        if self.obeys:
            self.card = ""


@pytest.fixture(name="machine")
def _machine(mocker):
    def make(domain, tree=None):
        machine = mocker.Mock(uuid="u", domain=domain, tree=tree)
        machine.host.timeout = 0.05
        machine.host.hypervisor.events.of = lambda uuid: contextlib.nullcontext(threading.Event())
        mocker.patch.object(agent, "connected", return_value=domain.answers)
        return machine

    return make


def refused(work):
    with pytest.raises(GridError) as caught:
        work()
    assert caught.value.code == "guest_refused" and "restarted" in caught.value.remedy
    return caught.value.msg


def test_processors_and_the_agent_that_brings_them_into_use(machine):
    domain = Domain(answers=True)
    plugging.set_vcpus(machine(domain), 4)
    live, guest = libvirt.VIR_DOMAIN_AFFECT_LIVE, libvirt.VIR_DOMAIN_VCPU_GUEST
    assert domain.calls == [("vcpus", 4, live), "agent", ("vcpus", 4, guest)]
    domain.calls.clear()
    plugging.set_vcpus(machine(domain), 1)
    assert domain.calls == ["agent", ("vcpus", 1, guest), ("vcpus", 1, live)] and domain.vcpus == 1
    domain = Domain()
    plugging.set_vcpus(machine(domain), 3)
    assert domain.calls == [("vcpus", 3, live)]


def test_memory_is_the_balloon_s_and_beyond_the_start_s_is_plugged_in(machine):
    domain = Domain()
    plugging.set_memory(machine(domain), 256 * MIB)
    plugging.set_memory(machine(domain), 768 * MIB)
    plugging.set_memory(machine(domain), 512 * MIB)
    assert domain.calls == [("balloon", 256), ("requested", 256), ("balloon", 512), ("requested", 0), ("balloon", 512)]


def test_cards(machine):
    domain = Domain()
    plugging.set_cards(machine(domain), ["lan"])
    assert domain.calls == []
    tree = plugging.domain_xml.parse(domain.XMLDesc(0))
    plugging.set_cards(machine(domain, tree), [])
    plugging.set_cards(machine(domain, tree), ["lan"])
    assert domain.calls == ["detach", "attach"]


def test_a_guest_that_does_not_do_its_part_is_told_with_what_it_has(machine):
    domain = Domain(obeys=False)
    assert "2 processors; libvirt says: unplug timed out" in refused(lambda: plugging.set_vcpus(machine(domain), 1))
    assert "it has 512 MiB" in refused(lambda: plugging.set_memory(machine(domain), 256 * MIB))
    assert "a card on lan" in refused(lambda: plugging.set_cards(machine(domain), []))
