# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes a machine's power: stop, pause, reboot, reset, hibernate, wake. Its start is in ``lifecycle``."""

from __future__ import annotations

import contextlib
import time
import typing as t
import xml.etree.ElementTree as ET

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor import metadata
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.api import Domain
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.connection import events_of, libvirt
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.files import hibernate
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.life.subject import Subject, domain_of, tree_of
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.state import agent, observe
from ansible_collections.virtuoso.grid.plugins.module_utils._wait import Pending, wait_for

# Seconds after which a guest is asked again, because one that is still booting ignores it
ASK_AGAIN = 5


def ask_until_done(
    machine: Subject,
    what: str,
    ask: t.Callable[[], None],
    left: t.Callable[[], str | None],
    again: bool = True,
    always: bool = False,
) -> None:
    """Ask a guest, and ask it again every :data:`ASK_AGAIN` seconds, until it has done what it was asked.

    :param left: returns ``None`` once that is done, else how far the guest is.
    :param again: whether to ask more than once.
    :param always: whether to ask even where there is nothing left to do.
    :raises GridError: ``timed_out``.
    """
    asked: float | None = None

    def probe() -> None:
        nonlocal asked
        state = left()
        due = asked is None or (again and time.monotonic() - asked >= ASK_AGAIN)
        if due and (state is not None or (always and asked is None)):
            asked = time.monotonic()
            ask()
            state = left()
        if state is not None:
            raise Pending(state)

    with events_of(machine.host.hypervisor).of(machine.uuid) as wake:
        wait_for(probe, machine.host.timeout, what=what, wake=wake, interval=1)


@contextlib.contextmanager
def _or_force(
    machine: Subject, code: str, what: str, remedy: str, like: str, force: t.Callable[[], None]
) -> t.Iterator[None]:
    """Run the body; where it times out and the run may force, call ``force``.

    :raises GridError: ``code``, where it may not.
    """
    host = machine.host
    try:
        yield
    except GridError as exc:
        if exc.code != "timed_out":
            raise
        if not host.force:
            raise GridError(
                code,
                f"the guest did not {what} within {host.timeout:g} s of being asked",
                remedy=f"{remedy} from inside, give it more time, or run again with force, which is like {like}",
                timeout=host.timeout,
            ) from exc
        force()


def pause(machine: Subject) -> None:
    """Pause the guest; its memory stays in the host's."""
    domain = domain_of(machine)
    if observe.state_of(domain) != "paused":
        domain.suspend()


def reset(machine: Subject) -> None:
    """Press the reset button: the guest reboots at once, without being asked."""
    domain_of(machine).reset(0)


def reboot(machine: Subject) -> None:
    """Ask the guest to reboot and wait until it has; at the deadline reset it if the run may force.

    :raises GridError: ``reboot_refused``.
    """
    host, domain = machine.host, domain_of(machine)
    events = events_of(host.hypervisor)
    before = events.reboots(machine.uuid)

    def left() -> str | None:
        if events.reboots(machine.uuid) != before:
            return None
        if not domain.isActive():
            # It was shut down from inside instead.
            raise GridError(
                "machine_stopped", "the guest shut down instead of rebooting", remedy="Start it: state running"
            )
        return observe.state_of(domain)

    def ask() -> None:
        with host.slots:
            _ask_reboot(domain)

    with _or_force(machine, "reboot_refused", "reboot", "Reboot it", "the reset button", lambda: reset(machine)):
        ask_until_done(machine, "the machine's reboot", ask, left)


def _ask_reboot(domain: Domain) -> None:
    flags = libvirt.VIR_DOMAIN_REBOOT_ACPI_POWER_BTN
    if agent.connected(domain):
        flags = libvirt.VIR_DOMAIN_REBOOT_GUEST_AGENT
    try:
        domain.reboot(flags)
    except libvirt.libvirtError:
        if flags != libvirt.VIR_DOMAIN_REBOOT_GUEST_AGENT or not domain.isActive():
            raise
        domain.reboot(libvirt.VIR_DOMAIN_REBOOT_ACPI_POWER_BTN)


def stop(machine: Subject) -> None:
    """Ask a running guest to shut down and wait until it is off; at the deadline pull the plug if the run may force.

    :raises GridError: ``shutdown_refused``.
    """
    domain = domain_of(machine)

    def left() -> str | None:
        return observe.state_of(domain) if domain.isActive() else None

    def ask() -> None:
        with machine.host.slots:
            _ask_shutdown(domain)

    with _or_force(
        machine, "shutdown_refused", "shut down", "Shut it down", "pulling the plug", lambda: pull_plug(machine)
    ):
        ask_until_done(machine, "the machine's shutdown", ask, left)


def _ask_shutdown(domain: Domain) -> None:
    """Ask the guest to shut down, through its agent if that is connected, else by the power button."""
    flags = libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN
    if agent.connected(domain):
        flags = libvirt.VIR_DOMAIN_SHUTDOWN_GUEST_AGENT
    try:
        if flags == libvirt.VIR_DOMAIN_SHUTDOWN_GUEST_AGENT:
            # An agent that is connected and hangs would block for a minute.
            with contextlib.suppress(libvirt.libvirtError, AttributeError):
                domain.agentSetResponseTimeout(agent.PATIENCE, 0)
        domain.shutdownFlags(flags)
    except libvirt.libvirtError:
        # It may just have shut down; if not, try the button.
        if domain.isActive():
            domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)


def pull_plug(machine: Subject) -> None:
    """End the machine's run at once."""
    domain = domain_of(machine)
    try:
        with machine.host.slots:
            domain.destroy()
    except libvirt.libvirtError:
        if domain.isActive():
            raise


def _note_autostart(domain: Domain, tree: ET.Element, kept: bool) -> None:
    """Note in the definition whether the machine is to be started with its provider again once it is awake."""
    values = metadata.read(tree)
    if values is not None and values["autostart"] != kept:
        metadata.put(tree, {**values, "autostart": kept})
        text = metadata.text({**values, "autostart": kept})
        domain.setMetadata(
            libvirt.VIR_DOMAIN_METADATA_ELEMENT,
            text,
            metadata.PREFIX,
            metadata.NAMESPACE,
            libvirt.VIR_DOMAIN_AFFECT_CONFIG,
        )


def sleep(machine: Subject) -> None:
    """Hibernate the machine: write its memory to a file, and end its run.

    A hibernated machine must not be started with its provider: it would boot, and lose its memory. So autostart is
    turned off, and noted before.
    """
    domain, tree = domain_of(machine), tree_of(machine)
    if domain.autostart():
        _note_autostart(domain, tree, True)
        domain.setAutostart(0)
    try:
        with machine.host.slots:
            hibernate.hibernate(machine.host.hypervisor.conn, machine.host.depot, domain)
    except GridError:
        if domain.isActive():
            restore_autostart(domain, tree)
        raise


def restore_autostart(domain: Domain, tree: ET.Element) -> None:
    """Turn autostart on again where it was noted before the machine was hibernated.

    :param tree: its definition for the next start.
    """
    values = metadata.read(tree)
    if values is not None and values["autostart"]:
        domain.setAutostart(1)
        _note_autostart(domain, tree, False)


def compress(machine: Subject) -> None:
    """Compress the memory that a killed run left uncompressed."""
    with machine.host.slots:
        hibernate.settle(machine.host.hypervisor.conn, machine.host.depot, domain_of(machine))


def wake(machine: Subject) -> None:
    """Restore the machine from its memory, paused."""
    depot = machine.host.depot
    with machine.host.slots:
        hibernate.resume(machine.host.hypervisor.conn, depot, machine.uuid)
    restore_autostart(domain_of(machine), tree_of(machine))


def discard_memory(machine: Subject) -> None:
    """Remove the files with a machine's memory."""
    hibernate.discard(machine.host.depot, machine.uuid)
    if machine.domain is not None:
        restore_autostart(machine.domain, tree_of(machine))


def set_clock(machine: Subject) -> bool:
    """Set the clock of a guest that was woken, through its agent; returns whether that was done."""
    with events_of(machine.host.hypervisor).of(machine.uuid) as woken:
        return hibernate.set_clock(domain_of(machine), woken)
