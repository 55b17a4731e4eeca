# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which provider for which machine (pure): same input, same answer; ties go by name.

Greedy, in the order of the list: what is placed already stays, then each machine, with those that it must be with,
takes the provider that its goal likes best among those that can hold it. The answer is complete; :mod:`improvement` may
improve it.
"""

from __future__ import annotations

import dataclasses
import math
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.account import Account
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.board import (
    NO_NETWORK,
    UNREACHABLE,
    Board,
    Held,
    Past,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.model import Demand, Provider, Rules, Use


@dataclasses.dataclass(frozen=True)
class Answer:
    """A machine's provider, or the error that says why it has none; the one reason against each provider that can't
    hold it."""

    provider: str | None
    reasons: t.Mapping[str, str] = dataclasses.field(default_factory=dict)
    error: GridError | None = None


def told(provider: Provider, demand: Demand) -> float | None:
    """What the machine's goal looks for first: the provider's price, or its latency; ``None`` where it isn't told or
    doesn't matter."""
    if demand.goal == "price":
        return provider.price
    return provider.latency_to(demand.home) if demand.goal == "interactivity" else None


def preference(account: Account, demand: Demand) -> tuple[t.Any, ...]:
    """What the machine's goal likes best sorts first. Price and latency count where providers tell them, else as
    ``balance``."""
    share = account.share(demand.use)
    last = (not account.has_image(demand.use), account.provider.name)
    if demand.goal == "pack":
        return (-share, *last)
    value = told(account.provider, demand)
    return (math.inf if value is None else value, share, *last)


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


def _stay(demand: Demand, board: Board, name: str) -> Answer | None:
    """Keep the machine where it is, with what it needs now; ``None`` if it may and must go elsewhere.

    What exists is only asked for what it needs beyond what it has; without room for that it keeps what it has.
    """
    account = board.accounts[name]
    there = demand.key in account.provider.machines
    fixed = there or demand.exists
    error = board.over_quota(demand)
    slot = account.slot_of(demand.key)
    before = account.release(demand.key)
    wanted = demand.use.beyond(board.past.stored.get(demand.key, demand.use)) if there else demand.use
    reason = None
    if error is None:
        reason = account.lack(wanted, demand.owner) if fixed else board.unfit(name, demand)
        if reason is None and fixed and demand.slot is not None:
            reason = account.refuse(demand.slot)
    if reason is None and error is None:
        board.hold(demand, name, wanted)
        return Answer(name)
    if reason is not None and not fixed:
        board.places.pop(demand.key, None)
        return None
    if before is not None:
        account.hold(demand.key, before, owner=demand.owner, whole=board.whole.get(demand.key), slot=slot)
    if error is None:
        beyond = " beyond what it has" if there else ""
        error = GridError(
            "no_provider",
            f"the machine is on {name}, which has no room for the change: it {reason}{beyond}",
            remedy="Order less, or make room there; the machine stays as it is",
            reasons={name: reason},
        )
    return Answer(None, {name: reason} if reason else {}, error)


def _none_fits(reasons: t.Mapping[str, str]) -> GridError:
    text = "; ".join(f"{name} {reason}" for name, reason in reasons.items())
    remedy = (
        "Order less, make room, or add a provider"
        if text
        else "Name hosts in the group providers and run virtuoso.grid.setup"
    )
    if text and all(reason.startswith(NO_NETWORK) for reason in reasons.values()):
        remedy = "Name the network in virtuoso_networks, which deploy makes, or order one that is there"
    return GridError(
        "no_provider",
        f"no provider can hold it: {text}" if text else "there is no provider",
        remedy=remedy,
        reasons=dict(reasons),
    )


def copy_of(error: GridError) -> GridError:
    """An error for one more machine: it will be told of the machine that has it."""
    return GridError(error.code, error.msg, remedy=error.remedy, **error.details)


def choose(board: Board, bundle: t.Sequence[Demand]) -> list[Answer]:
    """Place machines that must be together; one for each that has no bonds. Returns an answer for each."""
    reasons: dict[str, str] = {}
    fitting = []
    try:
        for name in board.accounts:
            reason = board.unfit_all(name, bundle)
            if reason is None:
                fitting.append(name)
            else:
                reasons[name] = reason
    except GridError as exc:
        return [Answer(None, {}, copy_of(exc)) for dummy in bundle]
    if not fitting:
        return [Answer(None, reasons, _none_fits(reasons)) for dummy in bundle]
    best = min(fitting, key=lambda name: preference(board.accounts[name], bundle[0]))
    for demand in bundle:
        board.hold(demand, best)
    return [Answer(best, reasons) for dummy in bundle]


def settle(demands: t.Sequence[Demand], board: Board) -> dict[int, Answer]:
    """The answers for what is placed already, or can't be for what its order says; the others are still to be placed."""
    answers: dict[int, Answer] = {}
    for index, demand in enumerate(demands):
        try:
            at = locate(demand, board.providers)
            if at is not None:
                board.places[demand.key] = at
        except GridError as exc:
            answers[index] = Answer(None, {}, exc)
    for index, demand in enumerate(demands):
        if index in answers:
            continue
        at = board.places.get(demand.key)
        try:
            answer = _stay(demand, board, at) if at else None
        except GridError as exc:
            answer = Answer(None, {}, exc)
        if answer is None and demand.key in board.bonds.errors:
            answer = Answer(None, {}, board.bonds.errors[demand.key])
        if answer is not None:
            answers[index] = answer
    return answers


def bundles(demands: t.Sequence[Demand], board: Board, answers: t.Mapping[int, Answer]) -> list[list[int]]:
    """What is still to be placed, in the order of the list: indexes of machines that must be together."""
    index_of = {demand.key: index for index, demand in enumerate(demands) if index not in answers}
    seen: set[int] = set()
    found = []
    for index, demand in enumerate(demands):
        if index in answers or index in seen:
            continue
        members = board.bonds.together.get(demand.key, frozenset({demand.key}))
        bundle = sorted(index_of[key] for key in members if key in index_of)
        seen.update(bundle)
        found.append(bundle)
    return found


def fill(demands: t.Sequence[Demand], board: Board, answers: dict[int, Answer], proposal: t.Mapping[str, str]) -> None:
    """Place what ``answers`` doesn't have yet, and add its answers.

    :param proposal: a provider by machine's key, taken where it can still hold the machine.
    """
    for bundle in bundles(demands, board, answers):
        wanted = [demands[index] for index in bundle]
        error = board.over_quota(*wanted)
        refused = [Answer(None, {}, copy_of(error)) for dummy in bundle] if error else None
        answers.update(zip(bundle, refused or _place(board, wanted, proposal)))


def _place(board: Board, bundle: t.Sequence[Demand], proposal: t.Mapping[str, str]) -> list[Answer]:
    name = proposal.get(bundle[0].key)
    if name is None or name not in board.accounts or board.unfit_all(name, bundle) is not None:
        return choose(board, bundle)
    reasons = {other: reason for other in board.accounts if (reason := board.unfit_all(other, bundle)) is not None}
    for demand in bundle:
        board.hold(demand, name)
    return [Answer(name, reasons) for dummy in bundle]


def solve(
    demands: t.Sequence[Demand],
    providers: t.Sequence[Provider],
    held: Held | None = None,
    stored: t.Mapping[str, Use] | None = None,
    rules: Rules = Rules(),
    *,
    past: Past | None = None,
    proposal: t.Mapping[str, str] | None = None,
) -> list[Answer]:
    """A greedy answer for each machine, in the same order.

    :param past: what is known; ``held`` and ``stored`` are the parts of it that most callers need.
    """
    board = Board(demands, providers, past or Past(held or {}, stored or {}), rules)
    answers = settle(demands, board)
    fill(demands, board, answers, proposal or {})
    return [answers[index] for index in range(len(demands))]
