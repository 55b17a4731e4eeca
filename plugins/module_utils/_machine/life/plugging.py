# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plugs processors, memory and network cards into a running machine, and unplugs them with its guest's help."""

from __future__ import annotations

import contextlib
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor import domain_xml, hardware
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.connection import libvirt
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.records import DomainModel
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.life.power import ask_until_done
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.life.subject import Subject, domain_of, tree_of
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.state import agent, observe
from ansible_collections.virtuoso.grid.plugins.module_utils._units import format_size


def _live(machine: Subject) -> DomainModel:
    return domain_xml.read(observe.running(domain_of(machine)))


def _ask(
    machine: Subject, what: str, ask: t.Callable[[], None], done: t.Callable[[], t.Optional[str]], again: bool = True
) -> None:
    """Ask the guest until it has done its part.

    :param what: what it is asked.
    :param done: returns ``None`` once that is done, else how far the guest is.
    :raises GridError: ``guest_refused``.
    """
    refused = ""

    def tolerant() -> None:
        nonlocal refused
        try:
            ask()
        except libvirt.libvirtError as exc:
            if not domain_of(machine).isActive():
                raise
            refused = f"; libvirt says: {str(exc).strip()[:200]}"

    try:
        ask_until_done(machine, what, tolerant, done, again, always=True)
    except GridError as exc:
        if exc.code != "timed_out":
            raise
        raise GridError(
            "guest_refused",
            f"the guest did not do its part within {machine.host.timeout:g} s: {what}; "
            f"it has {exc.details.get('last')}{refused}",
            remedy="It is so after the next start, state restarted. Or see that its kernel has the drivers for it, and "
            "run again",
            timeout=machine.host.timeout,
        ) from exc


def set_vcpus(machine: Subject, number: int) -> None:
    """Plug in processors, or have the guest give some back, until it has ``number``."""
    domain = domain_of(machine)
    has_agent = agent.connected(domain)

    def in_guest() -> None:
        # Not all guests take processors into use that were plugged in, or give them back, by themselves.
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

    _ask(machine, f"give back all but {number} processors", ask, done)


def set_memory(machine: Subject, size: int) -> None:
    """Give the guest ``size`` bytes of memory, with the balloon and the device of added memory."""
    domain = domain_of(machine)

    def ask() -> None:
        tree = observe.running(domain)
        split = hardware.memory_split(domain_xml.read(tree), size)
        device = hardware.memory_device(tree, split.requested)
        if device is not None:
            domain.updateDeviceFlags(device, libvirt.VIR_DOMAIN_AFFECT_LIVE)
        domain.setMemoryFlags(split.balloon // 1024, libvirt.VIR_DOMAIN_AFFECT_LIVE)

    def done() -> str | None:
        now = _live(machine)["memory"]
        return None if now == size else format_size(now)

    _ask(machine, f"come to {format_size(size)} of memory", ask, done, again=False)


def set_cards(machine: Subject, networks: t.Collection[str]) -> None:
    """Plug in the cards that the machine's definition has, and have the guest release others.

    :param networks: those of all cards beside the first.
    """
    domain = domain_of(machine)
    there = _live(machine)["extra_networks"]
    for network in sorted(set(networks) - set(there)):
        text = hardware.card_text(tree_of(machine), network, new=True)
        if text is not None:
            domain.attachDeviceFlags(text, libvirt.VIR_DOMAIN_AFFECT_LIVE)
    for network in sorted(set(there) - set(networks)):
        _unplug(machine, network)


def _unplug(machine: Subject, network: str) -> None:
    domain = domain_of(machine)

    def ask() -> None:
        text = hardware.card_text(observe.running(domain), network)
        if text is not None:
            domain.detachDeviceFlags(text, libvirt.VIR_DOMAIN_AFFECT_LIVE)

    def done() -> str | None:
        return f"a card on {network}" if network in _live(machine)["extra_networks"] else None

    _ask(machine, f"let go of its card on the network {network}", ask, done)
