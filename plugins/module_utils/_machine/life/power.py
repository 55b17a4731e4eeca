# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The effects on a machine's power beside its start: stop, pause, reboot, reset, hibernate, wake."""

from __future__ import annotations

import contextlib
import time
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor import metadata
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.connection import libvirt
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.files import hibernate
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.state import agent, observe
from ansible_collections.virtuoso.grid.plugins.module_utils._wait import Pending, wait_for

# Seconds after which a guest is asked again: one that is still booting hears nothing.
ASK_AGAIN = 5


class Machine(t.Protocol):
    """What is used here of :class:`lifecycle.Machine`."""

    host: t.Any
    uuid: str
    domain: t.Any
    tree: t.Any


def insist(
    machine: Machine,
    what: str,
    ask: t.Callable[[], None],
    left: t.Callable[[], str | None],
    again: bool = True,
    always: bool = False,
) -> None:
    """Ask a guest, and ask it again after a while, until it did its part.

    :param left: ``None`` once it did, else how far it is.
    :param again: otherwise it is asked once.
    :param always: asked even where nothing is left to be done.
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

    with machine.host.hypervisor.events.of(machine.uuid) as wake:
        wait_for(probe, machine.host.timeout, what=what, wake=wake, interval=1)


@contextlib.contextmanager
def _or_force(
    machine: Machine, code: str, what: str, remedy: str, like: str, force: t.Callable[[], None]
) -> t.Iterator[None]:
    """At the deadline, force what the guest was asked in vain if that is wanted.
    :raises GridError: ``shutdown_refused``, ``reboot_refused``."""
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

    def left() -> str | None:
        if host.hypervisor.events.reboots(machine.uuid) != before:
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
        insist(machine, "the machine's reboot", ask, left)


def _ask_reboot(domain: t.Any) -> None:
    flags = libvirt.VIR_DOMAIN_REBOOT_ACPI_POWER_BTN
    if agent.connected(domain):
        flags = libvirt.VIR_DOMAIN_REBOOT_GUEST_AGENT
    try:
        domain.reboot(flags)
    except libvirt.libvirtError:
        if flags != libvirt.VIR_DOMAIN_REBOOT_GUEST_AGENT or not domain.isActive():
            raise
        domain.reboot(libvirt.VIR_DOMAIN_REBOOT_ACPI_POWER_BTN)


def stop(machine: Machine) -> None:
    """Have the guest shut down and wait until it is off; at the deadline force it if that was asked for. A paused one
    must run first, to hear it.

    :raises GridError: ``shutdown_refused``.
    """
    domain = machine.domain

    def left() -> str | None:
        return observe.state_of(domain) if domain.isActive() else None

    def ask() -> None:
        with machine.host.slots:
            _ask_shutdown(domain)

    with _or_force(
        machine, "shutdown_refused", "shut down", "Shut it down", "pulling the plug", lambda: pull_plug(machine)
    ):
        insist(machine, "the machine's shutdown", ask, left)


def _ask_shutdown(domain: t.Any) -> None:
    """Ask the guest to shut down: its agent if that is there, else the power button."""
    flags = libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN
    if agent.connected(domain):
        flags = libvirt.VIR_DOMAIN_SHUTDOWN_GUEST_AGENT
    try:
        if flags == libvirt.VIR_DOMAIN_SHUTDOWN_GUEST_AGENT:
            # An agent that is connected and hangs would hold us for a minute.
            with contextlib.suppress(libvirt.libvirtError, AttributeError):
                domain.agentSetResponseTimeout(agent.PATIENCE, 0)
        domain.shutdownFlags(flags)
    except libvirt.libvirtError:
        # It may just have gone down; if not, the button is what remains.
        if domain.isActive():
            domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)


def pull_plug(machine: Machine) -> None:
    """End the machine's run at once."""
    try:
        with machine.host.slots:
            machine.domain.destroy()
    except libvirt.libvirtError:
        if machine.domain.isActive():
            raise


def _note_autostart(domain: t.Any, tree: t.Any, kept: bool) -> None:
    """Have the definition say whether the machine is to be started with its provider again once its memory is used."""
    values = t.cast("dict[str, t.Any]", metadata.read(tree))
    if values["autostart"] != kept:
        metadata.put(tree, {**values, "autostart": kept})
        text = metadata.text({**values, "autostart": kept})
        domain.setMetadata(
            libvirt.VIR_DOMAIN_METADATA_ELEMENT,
            text,
            metadata.PREFIX,
            metadata.NAMESPACE,
            libvirt.VIR_DOMAIN_AFFECT_CONFIG,
        )


def sleep(machine: Machine) -> None:
    """Keep the memory in a file, and end the run.

    A machine that sleeps must not be started with its provider: it would boot, and its memory be lost. Whether it was
    to be is noted before.
    """
    domain = machine.domain
    if domain.autostart():
        _note_autostart(domain, machine.tree, True)
        domain.setAutostart(0)
    try:
        with machine.host.slots:
            hibernate.hibernate(machine.host.hypervisor.conn, machine.host.depot, domain)
    except GridError:
        if domain.isActive():
            restore_autostart(domain, machine.tree)
        raise


def restore_autostart(domain: t.Any, tree: t.Any) -> None:
    """Have a machine whose memory is no longer kept be started with its provider again, if it was before it slept. Does
    nothing where nothing is noted.

    :param tree: of the definition for its next start.
    """
    values = metadata.read(tree)
    if values is not None and values["autostart"]:
        domain.setAutostart(1)
        _note_autostart(domain, tree, False)


def compress(machine: Machine) -> None:
    """Finish what another run, that was killed, left."""
    with machine.host.slots:
        hibernate.settle(machine.host.hypervisor.conn, machine.host.depot, machine.domain)


def wake(machine: Machine) -> None:
    """Restore the machine from its memory, paused."""
    depot = machine.host.depot
    with machine.host.slots:
        hibernate.resume(machine.host.hypervisor.conn, depot, machine.uuid)
    restore_autostart(machine.domain, machine.tree)


def discard_memory(machine: Machine) -> None:
    """Remove what there is of a machine's memory."""
    hibernate.discard(machine.host.depot, machine.uuid)
    if machine.domain is not None:
        restore_autostart(machine.domain, machine.tree)


def set_clock(machine: Machine) -> bool:
    """The guest's clock stood still meanwhile: its agent is told the time; whether it was."""
    with machine.host.hypervisor.events.of(machine.uuid) as woken:
        return hibernate.set_clock(machine.domain, woken)
