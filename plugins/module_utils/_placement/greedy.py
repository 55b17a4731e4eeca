# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The greedy answer: a provider for each machine, one machine after the other (pure).

Machines that are placed already stay. Then each machine, in the order of the list and together with those that it must
be with, takes the provider that suits its goal best among those that can hold it. The same input has the same answer;
ties go by name. The answer is complete; :mod:`improvement` may improve it.
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
    """The provider of a machine, or the error that says why it has none."""

    provider: str | None  # name
    reasons: t.Mapping[str, str] = dataclasses.field(default_factory=dict)  # why others can't hold it, by their names
    error: GridError | None = None


def goal_value(provider: Provider, demand: Demand) -> float | None:
    """What the machine's goal minimizes: the provider's price or latency; ``None`` if it isn't known or doesn't
    matter."""
    if demand.goal == "price":
        return provider.price
    return provider.latency_to(demand.home) if demand.goal == "interactivity" else None


def preference(account: Account, demand: Demand) -> tuple[float, float, bool, str]:
    """A key that sorts the provider that suits the machine's goal best first.

    A provider whose price or latency isn't known comes last; among such ones the goal is ``balance``.
    """
    share = account.share(demand.use)
    no_image, name = not account.has_image(demand.use), account.provider.name
    if demand.goal == "pack":
        return 0.0, -share, no_image, name
    value = goal_value(account.provider, demand)
    return math.inf if value is None else value, share, no_image, name


def locate(demand: Demand, providers: t.Mapping[str, Provider]) -> str | None:
    """The provider that the machine is on, or that holds room for it: as the store says, unless providers report
    otherwise. ``None`` if it isn't placed.

    :raises GridError: ``provider_unreachable`` (the machine is not moved: it may run there), ``several_copies``.
    """
    at = providers.get(demand.at) if demand.at else None
    if demand.at and (at is None or not at.reachable):
        why = f" ({at.trouble})" if at and at.trouble else ""
        raise GridError(
            "provider_unreachable",
            f"the machine is on {demand.at}, which {UNREACHABLE}{why}; "
            "it is not moved, because it may be running there",
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
    """Keep the machine on its provider, with what it needs now. ``None`` if it has to be placed anew.

    A machine that exists never moves: only what it needs beyond what it has must fit, or else it keeps what it has.
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
    """Copy an error, because each machine's result adds its own context to it."""
    copied = GridError(error.code, error.msg, remedy=error.remedy)
    copied.details.update(error.details)
    return copied


def choose(board: Board, bundle: t.Sequence[Demand]) -> list[Answer]:
    """Place a bundle, that is machines that must be together, on the provider that suits the first one best. Returns an
    answer for each."""
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
    """Answers, by index, for machines that stay where they are, and for those whose orders can't be met anywhere. All
    others are still to be placed."""
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
    """The machines that are still to be placed, in the order of the list: each bundle has the indexes of machines that
    must be together."""
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
    """Place the machines that have no answer yet, and add their answers.

    :param proposal: a provider for each machine's key; it is taken if it can still hold the machine.
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

    :param past: what is known; ``held`` and ``stored`` are the two parts of it that most callers need.
    """
    board = Board(demands, providers, past or Past(held or {}, stored or {}), rules)
    answers = settle(demands, board)
    fill(demands, board, answers, proposal or {})
    return [answers[index] for index in range(len(demands))]
