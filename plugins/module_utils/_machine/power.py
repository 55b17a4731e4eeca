# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The effects on a machine's power beside start and stop: pause, reboot, reset, hibernate, wake."""

from __future__ import annotations

import time
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor import domain_xml
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.connection import libvirt
from ansible_collections.virtuoso.grid.plugins.module_utils._machine import hibernate, observe
from ansible_collections.virtuoso.grid.plugins.module_utils._wait import Pending, wait_for

# Seconds after which a guest is asked again: one that is still booting hears nothing.
ASK_AGAIN = 5


class Machine(t.Protocol):
    """What is used here of :class:`lifecycle.Machine`."""

    host: t.Any
    uuid: str
    domain: t.Any
    tree: t.Any


def pause(machine: Machine) -> None:
    """Have the guest stand still, its memory kept in the host's."""
    if observe.state_of(machine.domain) != "paused":
        machine.domain.suspend()


def reset(machine: Machine) -> None:
    """Press the reset button: the guest begins anew at once, without being asked."""
    machine.domain.reset(0)


def reboot(machine: Machine) -> None:
    """Ask the guest to reboot, and wait until it did; at the deadline reset it if that was asked for.

    :raises GridError: ``reboot_refused``.
    """
    host, domain = machine.host, machine.domain
    before = host.hypervisor.events.reboots(machine.uuid)
    asked = -float(ASK_AGAIN)

    def probe() -> None:
        nonlocal asked
        if host.hypervisor.events.reboots(machine.uuid) != before:
            return
        if not domain.isActive():
            # It was shut down from inside instead.
            raise GridError("machine_stopped", "the guest shut down instead of rebooting", remedy="Start it: state running")
        if time.monotonic() - asked >= ASK_AGAIN:
            asked = time.monotonic()
            with host.slots:
                _ask_reboot(domain)
        raise Pending(observe.state_of(domain))

    try:
        with host.hypervisor.events.of(machine.uuid) as wake:
            wait_for(probe, host.timeout, what="the machine's reboot", wake=wake, interval=1)
    except GridError as exc:
        if exc.code != "timed_out":
            raise
        if not host.force:
            raise GridError(
                "reboot_refused",
                f"the guest did not reboot within {host.timeout:g} s of being asked",
                remedy="Reboot it from inside, give it more time, or run again with force, which is like the reset button",
                timeout=host.timeout,
            ) from exc
        domain.reset(0)


def _ask_reboot(domain: t.Any) -> None:
    flags = libvirt.VIR_DOMAIN_REBOOT_ACPI_POWER_BTN
    if domain_xml.agent_connected(observe.running(domain)):
        flags = libvirt.VIR_DOMAIN_REBOOT_GUEST_AGENT
    try:
        domain.reboot(flags)
    except libvirt.libvirtError:
        if flags != libvirt.VIR_DOMAIN_REBOOT_GUEST_AGENT or not domain.isActive():
            raise
        domain.reboot(libvirt.VIR_DOMAIN_REBOOT_ACPI_POWER_BTN)


def sleep(machine: Machine) -> None:
    """Keep the memory in a file, and end the run."""
    with machine.host.slots:
        hibernate.hibernate(machine.host.hypervisor.conn, machine.host.depot, machine.domain)


def compress(machine: Machine) -> None:
    """Finish what another run, that was killed, left."""
    with machine.host.slots:
        hibernate.settle(machine.host.hypervisor.conn, machine.host.depot, machine.domain)


def wake(machine: Machine) -> None:
    """Restore the machine from its memory, paused."""
    depot = machine.host.depot
    with machine.host.slots:
        hibernate.resume(machine.host.hypervisor.conn, depot, machine.uuid)


def set_clock(machine: Machine) -> bool:
    """The guest's clock stood still meanwhile: its agent is told the time; whether it was."""
    with machine.host.hypervisor.events.of(machine.uuid) as woken:
        return hibernate.set_clock(machine.domain, woken)
