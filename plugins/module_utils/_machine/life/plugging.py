# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Processors, memory and network cards of a running machine: plugged in, and taken out once its guest lets go of them."""

from __future__ import annotations

import contextlib
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor import domain_xml, hardware
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.connection import libvirt
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.life.power import Machine, insist
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.state import agent, observe
from ansible_collections.virtuoso.grid.plugins.module_utils._units import format_size


def _live(machine: Machine) -> dict[str, t.Any]:
    return domain_xml.read(observe.running(machine.domain))


def _await(
    machine: Machine, what: str, ask: t.Callable[[], None], done: t.Callable[[], t.Optional[str]], again: bool = True
) -> None:
    """Ask the guest until it did its part.
    :param done: ``None``, or how far it is.
    :raises GridError: ``guest_refused``."""
    refused = ""

    def tolerant() -> None:
        nonlocal refused
        try:
            ask()
        except libvirt.libvirtError as exc:
            if not machine.domain.isActive():
                raise
            refused = f"; libvirt says: {str(exc).strip()[:200]}"

    try:
        insist(machine, what, tolerant, done, again, always=True)
    except GridError as exc:
        if exc.code != "timed_out":
            raise
        raise GridError(
            "guest_refused",
            f"the guest did not do its part within {machine.host.timeout:g} s: {what}; it has {exc.details.get('last')}{refused}",
            remedy="It is so after the next start, state restarted. Or see that its kernel has the drivers for it, and run again",
            timeout=machine.host.timeout,
        ) from exc


def set_vcpus(machine: Machine, number: int) -> None:
    """Plug processors in, or have the guest give some back."""
    domain = machine.domain
    has_agent = agent.connected(domain)

    def in_guest() -> None:
        # Not all guests use by themselves what was plugged in, nor give back what they use.
        if has_agent:
            with contextlib.suppress(libvirt.libvirtError, AttributeError):
                domain.agentSetResponseTimeout(agent.PATIENCE, 0)
            with contextlib.suppress(libvirt.libvirtError):
                domain.setVcpusFlags(number, libvirt.VIR_DOMAIN_VCPU_GUEST)

    if number > _live(machine)["vcpus"]:
        domain.setVcpusFlags(number, libvirt.VIR_DOMAIN_AFFECT_LIVE)
        in_guest()
        return

    def ask() -> None:
        in_guest()
        domain.setVcpusFlags(number, libvirt.VIR_DOMAIN_AFFECT_LIVE)

    def done() -> str | None:
        now = _live(machine)["vcpus"]
        return None if now <= number else f"{now} processors"

    _await(machine, f"give back all but {number} processors", ask, done)


def set_memory(machine: Machine, size: int) -> None:
    """Have the guest use more, or less, of the memory that can be its own."""

    def ask() -> None:
        tree = observe.running(machine.domain)
        split = hardware.memory_split(domain_xml.read(tree), size)
        device = hardware.memory_device(tree, split.requested)
        if device is not None:
            machine.domain.updateDeviceFlags(device, libvirt.VIR_DOMAIN_AFFECT_LIVE)
        machine.domain.setMemoryFlags(split.balloon // 1024, libvirt.VIR_DOMAIN_AFFECT_LIVE)

    def done() -> str | None:
        now = _live(machine)["memory"]
        return None if now == size else format_size(now)

    _await(machine, f"come to {format_size(size)} of memory", ask, done, again=False)


def set_cards(machine: Machine, networks: t.Collection[str]) -> None:
    """Plug in the cards that the machine's configuration has, and have the guest let go of others.

    :param networks: of the cards that there are to be beside the first.
    """
    domain = machine.domain
    there = _live(machine)["extra_networks"]
    for network in sorted(set(networks) - set(there)):
        domain.attachDeviceFlags(
            t.cast(str, hardware.card_text(machine.tree, network, new=True)), libvirt.VIR_DOMAIN_AFFECT_LIVE
        )
    for network in sorted(set(there) - set(networks)):
        _unplug(machine, network)


def _unplug(machine: Machine, network: str) -> None:
    def ask() -> None:
        text = hardware.card_text(observe.running(machine.domain), network)
        if text is not None:
            machine.domain.detachDeviceFlags(text, libvirt.VIR_DOMAIN_AFFECT_LIVE)

    def done() -> str | None:
        return f"a card on {network}" if network in _live(machine)["extra_networks"] else None

    _await(machine, f"let go of its card on the network {network}", ask, done)
