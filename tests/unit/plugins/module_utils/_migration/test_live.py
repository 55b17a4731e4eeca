# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What libvirt is told of a live move, when one doesn't converge, and whether there is a way to the target."""

from __future__ import annotations

import json
import socket
import threading
import time

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor import domain_xml
from ansible_collections.virtuoso.grid.plugins.module_utils._migration.host import live

LIMITS = live.Limits(address="192.0.2.7", bandwidth=None, downtime=None, postcopy=True, postcopy_after=30.0, stall=30.0)


def test_what_libvirt_is_told():
    tree = domain_xml.parse("<domain><name>web1</name></domain>")
    told = live.parameters(LIMITS, tree, tree)
    assert (
        told["migrate_uri"] == "tcp://192.0.2.7"
        and told["migrate_disks"] == [domain_xml.ROOT_DISK]
        and "bandwidth" not in told
    )
    told = live.parameters(LIMITS._replace(address="2001:db8::7", bandwidth=50 * 2**20), tree, tree)
    assert told["migrate_uri"] == "tcp://[2001:db8::7]" and told["bandwidth"] == 50
    # libvirt counts in MiB; less than one is one, for none means no limit.
    assert live.parameters(LIMITS._replace(bandwidth=1000), tree, tree)["bandwidth"] == 1


@pytest.mark.parametrize(
    ("postcopy", "passes", "seconds", "answer"),
    [(True, 4, 31, True), (True, 4, 29, False), (True, 3, 31, False), (False, 9, 99, False)],
)
def test_when_one_does_not_converge(postcopy, passes, seconds, answer):
    assert live.diverges({"memory_iteration": passes}, seconds, LIMITS._replace(postcopy=postcopy)) is answer


def test_a_port_on_which_nobody_listens_yet_is_an_answer():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        live.require_way("127.0.0.1", taken.getsockname()[1])
        taken.listen()
        live.require_way("127.0.0.1", taken.getsockname()[1])


def test_a_target_that_does_not_answer_is_told_before_anything_is_touched(monkeypatch):
    def silent(*dummy, **_more):
        raise TimeoutError("timed out")

    monkeypatch.setattr(socket, "create_connection", silent)
    with pytest.raises(live.GridError) as caught:
        live.require_way("192.0.2.7")
    assert (
        caught.value.code == "target_unreachable"
        and caught.value.details["copy"] == "source"
        and "hibernated" in caught.value.remedy
    )


def test_what_an_interrupted_move_leaves_in_qemu_is_found():
    nodes = [
        {"node-name": name}
        for name in ("libvirt-1-format", "migration-vda-storage", "migration-vda-format", "libvirt-1-storage")
    ] + [{}]
    jobs = [{"device": "drive-virtio-disk0", "type": "mirror"}, {"device": "other", "type": "stream"}]
    assert live.leftovers(nodes, jobs) == (["drive-virtio-disk0"], ["migration-vda-format", "migration-vda-storage"])
    assert live.leftovers(nodes[:1], jobs[1:]) == ([], [])


class Qemu:
    """libvirt and QEMU after libvirtd was killed while it moved the machine: the first move fails, until what is left
    is removed."""

    def __init__(self):
        self.nodes, self.jobs, self.moves, self.asked = (
            ["migration-vda-format", "migration-vda-storage"],
            ["mirror"],
            0,
            [],
        )

    def migrate3(self, *dummy):
        self.moves += 1
        if self.nodes:
            raise live.libvirt.libvirtError("Duplicate nodes with node-name='migration-vda-storage'")

    def jobStats(self, _flags):  # pylint: disable=invalid-name
        return {"type": 0, "downtime": 5}

    def command(self, _domain, text, _flags):
        told = json.loads(text)
        self.asked.append(told["execute"])
        answer = None
        if told["execute"] == "query-named-block-nodes":
            answer = [{"node-name": name} for name in self.nodes]
        elif told["execute"] == "query-block-jobs":
            answer = [{"device": "vda", "type": kind} for kind in self.jobs]
        elif told["execute"] == "block-job-cancel":
            self.jobs = []
        elif told["execute"] == "blockdev-del":
            assert not self.jobs, "the node is in use"
            self.nodes.remove(told["arguments"]["node-name"])
        return json.dumps({"return": answer})


class Quiet:
    def stage(self, *_dummy):
        pass


def test_a_move_after_an_interrupted_one_clears_what_that_left(monkeypatch):
    import libvirt_qemu

    qemu, tree = Qemu(), domain_xml.parse("<domain/>")
    monkeypatch.setattr(libvirt_qemu, "qemuMonitorCommand", qemu.command)
    monkeypatch.setattr(live, "_flags", lambda limits: 0)
    assert live.migrate(qemu, None, LIMITS, tree, tree, Quiet())["downtime"] == 5
    assert qemu.moves == 2 and qemu.nodes == []


def test_the_connections_of_one_qemu_are_told_from_others():
    text = """ESTAB 0 0 198.18.0.22:41556 198.18.0.21:49153 users:(("qemu-system-x86",pid=13057,fd=29))
SYN-SENT 0 1 [2001:db8::1]:41557 [2001:db8::2]:49154 users:(("qemu-system-x86",pid=13057,fd=30))
ESTAB 0 0 198.18.0.22:41558 198.18.0.21:49155 users:(("qemu-system-x86",pid=130571,fd=29))
ESTAB 0 0 198.18.0.22:41559 198.18.0.21:49156
"""
    assert live.local_ports(text, 13057) == [41556, 41557] and live.local_ports("", 1) == []


class Stuck:
    """A machine whose QEMU waits for the network: libvirt doesn't answer either, until its connections are ended."""

    def __init__(self):
        self.free = threading.Event()

    def name(self):
        return "web1"

    def jobStats(self, _flags=0):  # pylint: disable=invalid-name
        self.free.wait(5)
        raise live.libvirt.libvirtError("cannot acquire state change lock")

    abortJob = jobStats  # pylint: disable=invalid-name

    def migrate3(self, *dummy):
        self.jobStats(0)


def test_a_move_in_which_nothing_gets_through_is_ended(monkeypatch):
    stuck, tree = Stuck(), domain_xml.parse("<domain/>")
    monkeypatch.setattr(live, "_flags", lambda limits: 0)
    monkeypatch.setattr(live, "hang_up", lambda domain, address: domain.free.set())
    begin = time.monotonic()
    with pytest.raises(live.GridError) as caught:
        live.migrate(stuck, None, LIMITS._replace(stall=0.5), tree, tree, Quiet())
    assert caught.value.code == "link_lost" and time.monotonic() - begin < 3
