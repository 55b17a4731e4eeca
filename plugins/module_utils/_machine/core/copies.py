# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decides which copy of a machine is the true one, by what the hosts and the store say, and what to do with the others
(pure).

A machine has a generation. A move makes a copy of the next generation on the target. Before the target may start it,
the source's copy is *marked*: its definition says where the machine goes (``moving``), and names a disk that doesn't
exist, so that nobody can start it. So at any moment:

* the copy of the highest generation is the true one, marked or not;
* a mark may be taken off only where the target is known to have no copy of the next generation;
* files at a target that aren't a copy yet (``incoming``) may always be removed, because nobody has used them.
"""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError

View = t.Mapping[str, t.Any]
"""A host's report of a machine, or a row of the store, as JSON has it."""

RESTORE = "restore"
"""Take the mark off, if there is one, and let the guest go on if the move paused or hibernated it."""
RELEASE = "release"
"""Remove the copy, because a newer one is known to be elsewhere."""
DISCARD = "discard"
"""Remove the files that arrived of a copy."""
FINISH = "finish"
"""Remove the note of the journey from a copy that arrived and is the true one."""
ADOPT = "adopt"
"""Make the files that arrived the machine, because its source is dead: only where a person says so."""

HIDDEN = ".moving"
"""The ending of a disk's name in a definition that must not start; no such file ever exists."""

OFF = ("stopped", "hibernated", "paused")


@dataclasses.dataclass(frozen=True)
class Copy:
    """What a host has of a machine.

    ``state`` is ``absent`` where it has no domain; ``answers`` is false for a host that doesn't answer.
    """

    host: str
    answers: bool = True
    state: str = "absent"
    generation: int = 0
    moving: t.Optional[View] = None
    incoming: t.Optional[View] = None
    slept: t.Optional[str] = None
    """Its state before it was hibernated for a move, which may not have begun."""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The host of the true copy (``None`` where that can't be decided), the action on each host, the hosts of stale
    copies that stay, and the problem to report."""

    host: t.Optional[str]
    actions: t.Dict[str, str] = dataclasses.field(default_factory=dict)
    stale: t.Tuple[str, ...] = ()
    problem: t.Optional[GridError] = None


def hidden(path: str) -> str:
    """The name, in a marked definition, of the disk ``path``."""
    return path if path.endswith(HIDDEN) else path + HIDDEN


def shown(path: str) -> str:
    """The name of the disk that a marked definition stands for."""
    return path[: -len(HIDDEN)] if path.endswith(HIDDEN) else path


def copy_of(host: str, view: View | None) -> Copy:
    """A copy from what the module ``machine_migrate`` returned of the machine on a host; ``None`` for a host that
    doesn't answer."""
    if view is None:
        return Copy(host, answers=False)
    keys = ("state", "generation", "moving", "incoming", "slept")
    return Copy(host, **{key: view[key] for key in keys if view.get(key) is not None})


def _silent(hosts: t.Sequence[str], what: str) -> GridError:
    return GridError(
        "host_unreachable",
        f"{', '.join(hosts)} doesn't answer, and {what}",
        remedy="Run again when the host answers; if it is dead for good, say so: -e source_is_dead=HOST",
        hosts=list(hosts),
    )


def decide(copies: t.Sequence[Copy], known: View | None = None, dead: t.Container[str] = ()) -> Verdict:
    """Find the true copy of a machine.

    :param copies: of each host that may have one.
    :param known: ``provider`` and ``generation`` in the store, ``None`` where the store doesn't know the machine.
    :param dead: hosts that, as a person says, won't come back with a running machine.
    """
    domains = [copy for copy in copies if copy.answers and copy.state != "absent"]
    silent = {copy.host for copy in copies if not copy.answers}
    if not domains:
        return _without_domain(copies, silent, known, dead)
    top = max(copy.generation for copy in domains)
    newest = [copy for copy in domains if copy.generation == top]
    if len(newest) > 1:
        return Verdict(None, problem=_several(newest))
    true = newest[0]
    if known and (known.get("generation") or 0) > top and known.get("provider") != true.host:
        return Verdict(None, stale=tuple(copy.host for copy in domains), problem=_outdated(true, known))
    actions: dict[str, str] = {}
    if true.moving:
        # A guest that runs at the source doesn't run at the target: libvirt lets it go on there only after it was
        # paused here.
        to = str(true.moving["to"])
        if true.state != "running" and to in silent and to not in dead:
            return Verdict(None, problem=_silent([to], f"the machine was on its way there from {true.host}"))
        if true.state != "running" and to not in {copy.host for copy in copies}:
            return Verdict(None, problem=_silent([to], "it was not asked"))
        actions[true.host] = RESTORE
    elif true.incoming:
        actions[true.host] = FINISH
    elif true.slept:
        actions[true.host] = RESTORE
    return _others(copies, true, actions)


def _others(copies: t.Sequence[Copy], true: Copy, actions: dict[str, str]) -> Verdict:
    """Add the actions on all copies but the true one."""
    stale: list[str] = []
    running: list[Copy] = []
    for copy in copies:
        if copy is true or not copy.answers:
            continue
        if copy.state == "absent":
            if copy.incoming:
                actions[copy.host] = DISCARD
        elif copy.state == "running":
            running.append(copy)
        elif copy.moving and copy.moving["to"] == true.host and copy.moving["generation"] == true.generation:
            actions[copy.host] = RELEASE
        else:
            stale.append(copy.host)
    if running:
        return Verdict(None, stale=tuple(stale), problem=_several([true, *running]))
    return Verdict(true.host, actions, tuple(stale))


def _without_domain(copies: t.Sequence[Copy], silent: set[str], known: View | None, dead: t.Container[str]) -> Verdict:
    """The verdict where no host that answers has a domain."""
    whole = [copy for copy in copies if copy.incoming and copy.incoming.get("complete")]
    waiting = sorted(host for host in silent if host not in dead)
    if whole and not waiting:
        return Verdict(whole[0].host, {whole[0].host: ADOPT})
    provider = (known or {}).get("provider")
    if waiting:
        arrived = f"; {whole[0].host} has all of it, but may not start it while the source may run" if whole else ""
        return Verdict(None, problem=_silent(waiting, f"no other host has the machine{arrived}"))
    if silent:
        return Verdict(
            None,
            problem=GridError(
                "no_copy",
                f"its source is dead, and no other host has a copy of it; it was last on {provider}",
                remedy="Bring the source's disk back; or retire the machine and deploy it anew, from a version of its "
                "image if there is one",
            ),
        )
    actions = {copy.host: DISCARD for copy in copies if copy.incoming}
    return Verdict(
        None,
        actions,
        problem=GridError(
            "machine_unknown",
            "no host has the machine" + (f"; the store says that it is on {provider}" if provider else ""),
            remedy="Run the playbook virtuoso.grid.refresh; then deploy the machine",
        ),
    )


def _several(copies: t.Sequence[Copy]) -> GridError:
    hosts = ", ".join(f"{copy.host} (generation {copy.generation}, {copy.state})" for copy in copies)
    return GridError(
        "several_copies",
        f"several hosts have the machine, and it is unknown which copy is right: {hosts}",
        remedy="Look at them, stop and undefine the wrong one, and run again",
        hosts=[copy.host for copy in copies],
    )


def _outdated(copy: Copy, known: View) -> GridError:
    return GridError(
        "stale_generation",
        f"{copy.host} has generation {copy.generation} of the machine, but generation {known['generation']} was on "
        f"{known['provider']}",
        remedy=f"The copy on {copy.host} is old and stays off. Run again when {known['provider']} answers",
        hosts=[copy.host],
    )


def refuse_moving(moving: View | None, incoming: bool) -> None:
    """Refuse to work on a machine that is on its way: it may run in at most one place.

    :param moving: the mark of the copy here.
    :param incoming: whether files of the machine have arrived here that aren't a machine yet.
    :raises GridError: ``stale_generation``.
    """
    if moving or incoming:
        where = f"is on its way from here to {moving['to']}" if moving else "is on its way to this host"
        raise GridError(
            "stale_generation",
            f"the machine {where}, and its copy here can't be used",
            remedy="Run virtuoso.grid.migrate again, or virtuoso.grid.refresh: they find the one true copy, and finish "
            "the move or undo it",
            moving=dict(moving) if moving else None,
        )
