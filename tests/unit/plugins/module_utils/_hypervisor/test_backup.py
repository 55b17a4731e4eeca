# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The copy of a running disk: begun in a moment of quiet, waited for, ended when something is wrong."""

from __future__ import annotations

import contextlib
import threading

import libvirt
import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor import backup, domain_xml

UUID = "5f0d5b1e-6c1c-4f3a-9c0f-000000000001"


def code(call, *args, **kwargs):
    with pytest.raises(GridError) as caught:
        call(*args, **kwargs)
    assert caught.value.remedy
    return caught.value.code


ENDED = {"type": libvirt.VIR_DOMAIN_JOB_NONE}
WELL = {"type": libvirt.VIR_DOMAIN_JOB_COMPLETED}


def going(done):
    return {"type": libvirt.VIR_DOMAIN_JOB_UNBOUNDED, "disk_processed": done, "disk_total": 100}


def refused(number):
    exc = libvirt.libvirtError("no")
    exc.err = (number, 0, "no", 0, None, None, None, 0, 0)
    return exc


class Domain:
    """A running domain whose backup goes as the test says; it writes down what was asked of it."""

    def __init__(self, stats=(), begin=None, freeze=1, thaw=(), leftover=None):
        self.asked, self.stats, self.begin, self.freeze, self.thaw, self.job = (
            [],
            list(stats),
            begin,
            freeze,
            list(thaw),
            leftover,
        )

    def UUIDString(self):
        return UUID

    def XMLDesc(self, flags):
        return "<domain><devices><disk><target dev='vda'/></disk><disk><target dev='vdb'/></disk></devices></domain>"

    def isActive(self):
        return True

    def state(self):
        return [libvirt.VIR_DOMAIN_RUNNING, 1]

    def agentSetResponseTimeout(self, *dummy):
        self.asked.append("patience")

    def fsFreeze(self):
        self.asked.append("freeze")
        if isinstance(self.freeze, Exception):
            raise self.freeze
        return self.freeze

    def fsThaw(self):
        self.asked.append("thaw")
        if self.thaw and "freeze" in self.asked:
            raise self.thaw.pop(0)

    def backupBegin(self, text, checkpoint, flags):
        self.asked.append("begin")
        if self.begin is not None:
            raise self.begin
        self.job = text

    def backupGetXMLDesc(self, flags):
        if self.job is None:
            raise refused(libvirt.VIR_ERR_NO_DOMAIN_BACKUP)
        return self.job

    def jobStats(self, flags):
        if flags:
            return self.stats.pop(0)
        return self.stats.pop(0) if len(self.stats) > 1 else ENDED

    def abortJob(self):
        self.asked.append("abort")
        self.job = None


class Events:
    """Events that come at once."""

    def of(self, uuid):
        class Always(threading.Event):
            def wait(self, timeout=None):
                return True

        return contextlib.nullcontext(Always())


def copy(domain, agent=True, timeout=5):
    told = []
    kind = backup.copy(domain, Events(), "/depot/disk.qcow2", timeout, agent, lambda *args: told.append(args))
    return kind, told


def test_the_backup_is_of_the_root_disk_only():
    tree = domain_xml.parse(Domain().XMLDesc(0))
    text = backup.description(tree, "/a & b/disk.qcow2")
    assert backup.targets(text) == ["/a & b/disk.qcow2"] and 'name="vdb" backup="no"' in text and 'type="qcow2"' in text


def test_frozen_only_while_the_copy_begins():
    domain = Domain([going(10), going(50), WELL])
    assert copy(domain) == ("filesystems", [(10, 100), (50, 100)])
    assert domain.asked == ["patience", "thaw", "freeze", "begin", "thaw"]


def test_a_guest_without_an_agent():
    domain = Domain([WELL])
    assert copy(domain, agent=False)[0] == "crash" and domain.asked == ["begin"]


@pytest.mark.parametrize("freeze", [0, refused(libvirt.VIR_ERR_AGENT_UNRESPONSIVE)])
def test_an_agent_that_does_not_freeze_is_thawed_all_the_same(freeze):
    domain = Domain([WELL], freeze=freeze)
    assert copy(domain)[0] == "crash" and domain.asked[-2:] == ["begin", "thaw"]


def test_a_guest_is_thawed_when_the_copy_can_not_begin():
    domain = Domain(begin=refused(libvirt.VIR_ERR_OPERATION_INVALID))
    assert code(copy, domain) == "machine_busy" and domain.asked[-1] == "thaw"
    domain = Domain(begin=refused(libvirt.VIR_ERR_OPERATION_UNSUPPORTED))
    assert code(copy, domain) == "capture_unsupported" and domain.asked[-1] == "thaw"


def test_an_agent_that_thaws_at_the_third_try():
    domain = Domain([WELL], thaw=[refused(libvirt.VIR_ERR_AGENT_UNRESPONSIVE)] * 2)
    assert copy(domain)[0] == "filesystems" and domain.asked.count("thaw") == 4


def test_an_agent_that_never_thaws_is_told(monkeypatch):
    monkeypatch.setattr(backup, "_THAW_PATIENCE", 0)
    domain = Domain([WELL], thaw=[refused(libvirt.VIR_ERR_AGENT_UNRESPONSIVE)] * 5)
    assert code(copy, domain) == "guest_frozen"


@pytest.mark.parametrize(
    "end",
    [
        {"type": libvirt.VIR_DOMAIN_JOB_FAILED, "errmsg": "No space left on device"},
        {"type": libvirt.VIR_DOMAIN_JOB_CANCELLED},
    ],
)
def test_a_copy_that_fails(end):
    domain = Domain([going(10), end])
    assert code(copy, domain) == "capture_failed" and domain.job is None


def test_a_copy_that_takes_too_long_is_ended():
    domain = Domain([going(1), going(2), going(3), WELL])
    assert code(copy, domain, timeout=0) == "timed_out" and domain.asked[-1] == "abort" and domain.job is None


def test_what_a_killed_run_left():
    tree = domain_xml.parse(Domain().XMLDesc(0))
    left = Domain(leftover=backup.description(tree, "/depot/images/.staging/capture-x/disk.qcow2"))
    assert backup.abandoned(left, "/depot/images/.staging/capture-x")
    assert not backup.abandoned(left, "/depot/images/.staging/capture-") and not backup.abandoned(Domain(), "/depot")
    backup.abort(left)
    assert left.job is None
    nothing = Domain()
    backup.abort(nothing)
    assert nothing.asked == []
