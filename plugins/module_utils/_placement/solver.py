# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which provider for which machine (pure): same input, same answer; ties go by name.

Greedy, in the order of the list: what is placed already stays, then each machine takes the provider that its goal likes best
among those that can hold it.
"""

from __future__ import annotations

import dataclasses
import math
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.model import Account, Demand, Provider, Rules, Use

UNREACHABLE = "is not reachable in this run"


@dataclasses.dataclass(frozen=True)
class Answer:
    """A machine's provider, or the error that says why it has none; the one reason against each provider that can't hold it."""

    provider: str | None
    reasons: t.Mapping[str, str] = dataclasses.field(default_factory=dict)
    error: GridError | None = None


def unfit(account: Account, demand: Demand) -> str | None:
    """The one reason why this provider can't hold the machine, or ``None``."""
    provider = account.provider
    if not provider.reachable:
        return f"{UNREACHABLE}: {provider.trouble}" if provider.trouble else UNREACHABLE
    if not provider.measured:
        return "did not report what it has"
    if provider.architecture != demand.architecture:
        return f"is {provider.architecture}, the image is made for {demand.architecture}"
    if provider.networks is not None and demand.network is not None and demand.network not in provider.networks:
        return f"has no active network {demand.network} (it has {', '.join(sorted(provider.networks)) or 'none'})"
    return account.lack(demand.use)


def preference(account: Account, demand: Demand) -> tuple[t.Any, ...]:
    """What the machine's goal likes best sorts first. Price and latency count where providers tell them, else as ``balance``."""
    share = account.share(demand.use)
    last = (not account.has_image(demand.use), account.provider.name)
    if demand.goal == "pack":
        return (-share, *last)
    told = {"price": account.provider.price, "interactivity": account.provider.latency}.get(demand.goal)
    return (math.inf if told is None else told, share, *last)


def locate(demand: Demand, providers: t.Mapping[str, Provider]) -> str | None:
    """The provider that the machine is on, or held on: the store's word, corrected by what the providers see.

    :raises GridError: ``provider_unreachable`` (the machine is not moved: it may run there), ``several_copies``.
    """
    at = providers.get(demand.at) if demand.at else None
    if demand.at and (at is None or not at.reachable):
        why = f" ({at.trouble})" if at and at.trouble else ""
        raise GridError(
            "provider_unreachable",
            f"the machine is on {demand.at}, which {UNREACHABLE}{why}; it is not moved, because it may be running there",
            remedy=f"Bring {demand.at} back, or run the play on it too",
            provider=demand.at,
            reason=at.trouble if at else None,
        )
    seen = sorted(name for name, provider in providers.items() if demand.key in provider.machines)
    if demand.at and (demand.at in seen or not seen):
        return demand.at
    if len(seen) > 1:
        running = [name for name in seen if demand.key in providers[name].running]
        if len(running) == 1:
            return running[0]
        raise GridError(
            "several_copies",
            f"the machine is defined on {' and '.join(seen)}",
            remedy="Find out which one is right, and undefine it on the others",
            providers=seen,
        )
    return seen[0] if seen else None


def _stay(demand: Demand, account: Account, stored: Use) -> Answer | None:
    """Keep the machine where it is, with what it needs now; ``None`` if it may and must go elsewhere.

    What exists is only asked for what it needs beyond ``stored``, what it has; without room for that it keeps what it has.
    """
    there = demand.key in account.provider.machines
    before = account.release(demand.key)
    wanted = demand.use.beyond(stored) if there else demand.use
    reason = account.lack(wanted) if there or demand.exists else unfit(account, demand)
    if reason is None:
        account.hold(demand.key, wanted)
        return Answer(account.provider.name)
    if not there and not demand.exists:
        return None
    if before is not None and not there:
        account.hold(demand.key, before)
    name = account.provider.name
    error = GridError(
        "no_provider",
        f"the machine is on {name}, which has no room for the change: it {reason}" + (" beyond what it has" if there else ""),
        remedy="Order less, or make room there; the machine stays as it is",
        reasons={name: reason},
    )
    return Answer(None, {name: reason}, error)


def _choose(demand: Demand, accounts: t.Sequence[Account]) -> Answer:
    reasons, fitting = {}, []
    for account in accounts:
        reason = unfit(account, demand)
        if reason is None:
            fitting.append(account)
        else:
            reasons[account.provider.name] = reason
    if fitting:
        best = min(fitting, key=lambda account: preference(account, demand))
        best.hold(demand.key, demand.use)
        return Answer(best.provider.name, reasons)
    told = "; ".join(f"{name} {reason}" for name, reason in reasons.items())
    error = GridError(
        "no_provider",
        f"no provider can hold it: {told}" if told else "there is no provider",
        remedy="Order less, make room, or add a provider"
        if told
        else "Name hosts in the group providers and run virtuoso.grid.setup",
        reasons=reasons,
    )
    return Answer(None, reasons, error)


def solve(
    demands: t.Sequence[Demand],
    providers: t.Sequence[Provider],
    held: t.Mapping[str, t.Mapping[str, Use]] | None = None,
    stored: t.Mapping[str, Use] | None = None,
    rules: Rules = Rules(),
) -> list[Answer]:
    """An answer for each machine, in the same order.

    :param held: what is placed on each provider: what each machine will take, by provider's name and machine's key.
    :param stored: what each machine that exists already takes, as last seen; without it, what is held.
    """
    stored = stored or {}
    accounts = {provider.name: Account(provider, rules) for provider in sorted(providers, key=lambda provider: provider.name)}
    by_name = {provider.name: provider for provider in providers}
    for name, uses in (held or {}).items():
        for key, use in uses.items():
            if name in accounts:
                there = key in by_name[name].machines
                accounts[name].hold(key, use.beyond(stored.get(key, use)) if there else use)
    answers: dict[int, Answer] = {}
    for index, demand in enumerate(demands):
        try:
            at = locate(demand, by_name)
            answer = _stay(demand, accounts[at], stored.get(demand.key, demand.use)) if at else None
        except GridError as exc:
            answer = Answer(None, {}, exc)
        if answer is not None:
            answers[index] = answer
    for index, demand in enumerate(demands):
        if index not in answers:
            answers[index] = _choose(demand, list(accounts.values()))
    return [answers[index] for index in range(len(demands))]
