# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why a machine can't be reached, of what was seen of it and tried (pure)."""

from __future__ import annotations

import ipaddress
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._doctor.findings import Finding, finding, well
from ansible_collections.virtuoso.grid.plugins.module_utils._doctor.records import Attempt, Machine, MachineFacts, Reach

SHARED = ipaddress.ip_network("100.64.0.0/10")
"""RFC 6598: between a provider of access and its customers."""
_LISTENS = {
    "nat": "see that the provider's network answers DHCP: virtuoso.grid.doctor checks the provider",
    "isolated": "see that the provider's network answers DHCP: virtuoso.grid.doctor checks the provider",
    "overlay": "see that the home's DHCP server is on the network: ansible-playbook virtuoso.grid.overlay",
}
_ANOTHER = "see that a DHCP server is on its network, or order it with an address"


def kind_of(address: str) -> t.Tuple[str, str]:
    """The code of an address, and from where it can be routed to, for people."""
    ip = ipaddress.ip_address(address)
    if ip.is_link_local:
        return "address_link_local", "link-local: its guest made it up, nothing routes it"
    if ip.is_loopback or ip.is_multicast or ip.is_unspecified:
        return "address_special", "no address of a machine"
    if ip.version == 4 and ip in SHARED:
        return "address_shared", "shared (RFC 6598): routed inside its access network only, not from the internet"
    if ip.is_global:
        return "address_public", "public: routable from everywhere, if its routers and firewalls let it through"
    if ip.is_private:
        return "address_private", "private: routed inside its own networks only, not from the internet"
    return "address_special", "reserved"


def addresses(machine: Machine) -> t.List[str]:
    """What to connect to: addresses that were seen; where none was, the ordered one."""
    seen = [each for source in machine["facts"]["seen"] for each in source["addresses"]] if machine["facts"] else []
    return list(dict.fromkeys(seen or ([machine["ordered"]] if machine["ordered"] else [])))


def judge_machine(machine: Machine) -> t.List[Finding]:
    """All that is to be said of it."""
    name, facts = machine["name"], machine["facts"]
    if not machine["known"]:
        return [finding("machine_unknown", name, "the store has no such machine")]
    if not machine["provider"]:
        return [finding("machine_unplaced", name, "it is ordered, and not on any provider yet")]
    if facts is None:
        told = (
            f"its provider {machine['provider']} could not look at it: {machine['error'] or 'it is not in this play'}"
        )
        return [finding("machine_unseen", name, told), *_reached(machine)]
    if not facts["present"]:
        return [finding("machine_absent", name, f"{machine['provider']} does not have it")]
    if facts["state"] != "running":
        return [finding("machine_not_running", name, f"it is {facts['state']} on {machine['provider']}", machine=name)]
    return [
        well("machine", name, f"runs on {machine['provider']}, network {facts['network']} ({facts['mode']})"),
        *_addresses(machine, facts),
        *_reached(machine),
    ]


def _addresses(machine: Machine, facts: MachineFacts) -> t.List[Finding]:
    """Who saw which, and what they are worth."""
    name = machine["name"]
    advice = _LISTENS.get(facts["mode"], _ANOTHER)
    by: t.Dict[str, t.List[str]] = {}
    for source in facts["seen"]:
        for address in source["addresses"]:
            by.setdefault(address, []).append(source["source"])
    if not by and machine["ordered"]:
        told = f"{machine['ordered']} was ordered; neither lease, agent, neighbour table nor home has seen it"
        return [finding("address_unseen", name, told)]
    if not by:
        told = "it has none: neither lease, agent, neighbour table nor home has seen one"
        return [finding("address_none", name, told, advice=advice)]
    found = []
    kinds = {address: kind_of(address) for address in by}
    for address, sources in by.items():
        code, told = kinds[address]
        if code == "address_link_local" and any(other != code for other, dummy in kinds.values()):
            continue
        found.append(finding(code, name, f"{address}, seen by {', '.join(sources)}: {told}", advice=advice))
    return found


_ORDER = ("open", "refused", "timeout", "other", "unreachable", "unresolved")


def _best(reach: Reach) -> t.Optional[t.Tuple[str, Attempt]]:
    """The address that went best, and how."""
    tried = sorted(reach["attempts"].items(), key=lambda pair: _ORDER.index(pair[1]["result"]))
    return tried[0] if tried else None


def _reached(machine: Machine) -> t.List[Finding]:
    """From where its port answers, and what stands in the way where it doesn't."""
    found: t.List[Finding] = []
    mode = machine["facts"]["mode"] if machine["facts"] else "unknown"
    own_network = [reach for reach in machine["reaches"] if _is_near(reach, machine, mode)]
    answered = any(best[1]["result"] == "open" for best in map(_best, own_network) if best)
    missed = False
    for reach in machine["reaches"]:
        best = _best(reach)
        where, port = f"{reach['host']}", machine["port"]
        if best is None:
            found.append(finding("port_untried", where, f"not tried: {reach['error'] or 'no address is known'}"))
            continue
        address, attempt = best
        told = f"{machine['name']} at {address}, TCP {port}: {_said(attempt)}"
        near = reach in own_network
        missed = missed or (attempt["result"] != "open" and not near)
        if attempt["result"] == "open":
            found.append(finding("port_open", where, told))
        elif near:
            found.append(finding(_CODES.get(attempt["result"], "port_unreachable"), where, told, address=address))
        elif reach["role"] == "provider":
            found.append(finding("port_untried", where, f"{told}; it has no address on this network"))
        else:
            advice = _advice(machine, mode, answered)
            found.append(finding("port_blocked", where, told, advice=advice))
    return [*found, *_rules(machine, missed)]


_CODES = {"refused": "port_closed", "timeout": "port_silent"}


def _said(attempt: Attempt) -> str:
    words = {"open": "open", "refused": "refused", "timeout": "no answer"}
    return words.get(attempt["result"]) or str(attempt["error"] or attempt["result"])


def _is_near(reach: Reach, machine: Machine, mode: str) -> bool:
    """Whether the machine's network is this host's own: the answer from there says what the guest does."""
    if mode in ("overlay", "bridge"):
        return reach["role"] == "home" and reach["host"] in machine["homes"]
    return reach["role"] == "provider"


def _advice(machine: Machine, mode: str, answered: bool) -> str:
    """What to do where only the way is at fault, or the guest is as well."""
    if not answered:
        return "See first why it does not answer on its own network"
    if mode == "nat":
        return f"Its network is behind {machine['provider']} (NAT): go through it, ssh -J {machine['provider']}"
    if mode == "isolated":
        return f"Its network is {machine['provider']}'s own: go through it, ssh -J {machine['provider']}"
    if mode == "overlay" and machine["homes"]:
        home = machine["homes"][0]
        return f"Its network is the LAN of {home}: go through it, ssh -J {home}, or forward a port on its router"
    return "Look at routes, routers and firewalls between this host and the machine"


def _rules(machine: Machine, missed: bool) -> t.List[Finding]:
    """What on the provider stops traffic from elsewhere; only where some was stopped."""
    facts = machine["facts"]
    if facts is None or not missed:
        return []
    name, provider = machine["name"], str(machine["provider"])
    address = next(iter(addresses(machine)), "")
    found = []
    # libvirt's rules are how it makes a network such as it is.
    own = [rule for rule in facts["rules"] if "libvirt" in rule.lower()]
    if facts["mode"] == "nat":
        by = f" ({'; '.join(own)})" if own else ""
        told = f"network {facts['network']} is NAT: connections from outside {provider} do not come in{by}"
        found.append(finding("rules_nat", name, told, provider=provider))
    elif facts["mode"] == "isolated":
        told = f"network {facts['network']} has no forwarding: only {provider} reaches it"
        found.append(finding("rules_isolated", name, told))
    elif facts["mode"] == "route":
        told = f"network {facts['network']} is routed: others need a route to it"
        found.append(finding("rules_route", name, told, provider=provider))
    for rule in facts["rules"]:
        if rule in own and facts["mode"] in ("nat", "isolated"):
            continue
        told = f"{provider}'s firewall: {rule}"
        found.append(finding("rules_stop", name, told, port=machine["port"], address=address))
    return found
