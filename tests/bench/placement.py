# SPDX-License-Identifier: GPL-3.0-or-later
"""Placing and rebalancing a synthetic grid, beside Ganeti's hail and hbal; needs no lab.

All get the same providers and machines, made from a seed. All answers are compared by the score that ``hbal -l 0``
prints of an allocation; less is better. It is a sum of weighted standard deviations of the nodes' resources, which both
of Ganeti's programs minimize. Ours gets the same weights. ``hail`` places the whole batch in one request; ``hbal`` and
ours may move the same number of machines.
"""

from __future__ import annotations

import dataclasses
import json
import random
import re
import subprocess
import sys
import tempfile
import time
import typing as t

from measure import CHECKOUT, Row

sys.path.insert(0, str(CHECKOUT / "build" / "collections"))

from ansible_collections.virtuoso.grid.plugins.module_utils._placement import cp_sat, improvement  # noqa: E402
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.board import Board, Past  # noqa: E402
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.greedy import bundles, settle  # noqa: E402
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.model import Demand, Provider, Rules, Use  # noqa: E402
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.problem import Problem, State, Weights, read  # noqa: E402
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.rebalance import rebalance  # noqa: E402

SEED = 1
WITHIN = 10.0
BOUND_SECONDS = 30.0
PATIENCE = 90.0
"""Seconds after which a peer is stopped."""

MIB = 2**20
MEMORY, RESERVE, CPUS, OVERCOMMIT = 64 * 1024, 512, 16, 16.0
# hbal gives weight 1 to memory and to the ratio of virtual to real CPUs, and 4 to the number of machines, whose load it
# assumes to be equal.
WEIGHTS = Weights(memory=MEMORY / (MEMORY - RESERVE), cpus=OVERCOMMIT, machines=4.0)

# machines, providers, moves when rebalancing; hbal takes 45 s a move for the last
SIZES = ((100, 50, 20), (200, 40, 30), (1000, 200, 2))

HAIL = "/usr/lib/ganeti/iallocators/hail"


@dataclasses.dataclass(frozen=True)
class Machine:
    """Memory in MiB."""

    name: str
    memory: int
    vcpus: int


def grid(machines: int, providers: int) -> tuple[list[str], list[Machine], dict[str, str]]:
    """Providers, machines, and a random allocation in which all fit."""
    dice = random.Random(SEED)
    names = [f"p{number:03}" for number in range(providers)]
    wanted = [
        Machine(f"m{number:04}", dice.choice([1, 2, 2, 4, 4, 8, 16]) * 1024, dice.choice([1, 1, 2, 2, 4, 8]))
        for number in range(machines)
    ]
    free = dict.fromkeys(names, MEMORY - RESERVE)
    where = {}
    for machine in wanted:
        where[machine.name] = dice.choice([name for name in names if free[name] >= machine.memory])
        free[where[machine.name]] -= machine.memory
    return names, wanted, where


def as_text(names: list[str], machines: list[Machine], where: t.Mapping[str, str]) -> str:
    """The grid in Ganeti's text format; on shared storage (rbd), so that only memory and CPUs count and everything may
    move."""
    used = dict.fromkeys(names, 0)
    for machine in machines:
        if machine.name in where:
            used[where[machine.name]] += machine.memory
    nodes = [
        f"{name}|{MEMORY}|{RESERVE}|{MEMORY - RESERVE - used[name]}|1024000|1024000|{CPUS}|{'N' if number else 'M'}"
        "|group-uuid|1||N|0|1|1.0"
        for number, name in enumerate(names)
    ]
    instances = [
        f"{machine.name}|{machine.memory}|1024|{machine.vcpus}|running|Y|{where[machine.name]}||rbd||1|1|N"
        for machine in machines
        if machine.name in where
    ]
    policy = f"|128,1,1024,1,1,1|128,1,1024,1,1,1;{MEMORY},{CPUS},1048576,16,8,12|rbd|{OVERCOMMIT}|32.0"
    return "\n".join(["group|group-uuid|preferred||", "", *nodes, "", *instances, "", "", policy, ""])


def run(argv: list[str], text: str, stdin: str = "") -> tuple[str | None, float]:
    """Run a program of Ganeti's, with the path of a file with the grid for ``{}``. Returns its output, ``None`` if it
    took too long, and its seconds."""
    with tempfile.NamedTemporaryFile("w", suffix=".data", encoding="ascii") as file:
        file.write(text)
        file.flush()
        begin = time.monotonic()
        try:
            done = subprocess.run(
                [each.format(file.name) for each in argv],
                input=stdin,
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                check=True,
            )
        except subprocess.TimeoutExpired:
            return None, time.monotonic() - begin
        return done.stdout, time.monotonic() - begin


def score(names: list[str], machines: list[Machine], where: t.Mapping[str, str]) -> float:
    """hbal's own score of an allocation of all machines."""
    if len(where) != len(machines):
        raise SystemExit(f"bench: {len(machines) - len(where)} machines have no provider")
    output, dummy = run(["hbal", "-t", "{}", "-l", "0"], as_text(names, machines, where))
    found = re.search(
        r"Initial score: ([0-9.]+)|Cluster is already well balanced \(initial score ([0-9.e-]+)", output or ""
    )
    if found is None:
        raise SystemExit(f"bench: hbal prints no score:\n{output}")
    return float(found.group(1) or found.group(2))


def hail(names: list[str], machines: list[Machine]) -> tuple[dict[str, str] | None, float]:
    """hail's allocation of the whole batch, ``None`` if it found none in time; and its seconds."""
    instances = [
        {
            "type": "allocate",
            "name": machine.name,
            "memory": machine.memory,
            "maxmem": machine.memory,
            "vcpus": machine.vcpus,
            "disk_space_total": 1024,
            "disks": [{"size": 1024, "mode": "w"}],
            "disk_template": "rbd",
            "spindle_use": 1,
            "required_nodes": 1,
            "tags": [],
            "nics": [],
            "os": "none",
            "hypervisor": "kvm",
        }
        for machine in machines
    ]
    asked = {
        "version": 2,
        "cluster_tags": [],
        "cluster_name": "bench",
        "enabled_hypervisors": ["kvm"],
        "ipolicy": {},
        "nodegroups": {},
        "nodes": {},
        "instances": {},
        "request": {"type": "multi-allocate", "instances": instances},
    }
    output, seconds = run([HAIL, "-t", "{}", "-"], as_text(names, machines, {}), json.dumps(asked))
    if output is None:
        return None, seconds
    return {name: nodes[0] for name, nodes in json.loads(output)["result"][0]}, seconds


def hbal(
    names: list[str], machines: list[Machine], where: t.Mapping[str, str], moves: int
) -> tuple[dict[str, str] | None, int, float]:
    """hbal's allocation after at most so many moves, the number of machines that moved, and its seconds."""
    output, seconds = run(["hbal", "-t", "{}", "-l", str(moves)], as_text(names, machines, where))
    if output is None:
        return None, 0, seconds
    after = dict(where)
    for name, target in re.findall(r"^ *\d+\. (m\d+) +p\d+ +=> (p\d+) ", output, re.MULTILINE):
        after[name] = target
    return after, sum(after[name] != where[name] for name in after), seconds


def ours(names: list[str], machines: list[Machine]) -> tuple[list[Demand], list[Provider]]:
    """The grid as placement has it."""
    free = {"memory": MEMORY * MIB, "memory_free": MEMORY * MIB, "disk": 2**50, "disk_free": 2**50}
    providers = [Provider(name, cpus=CPUS, **free) for name in names]
    return [Demand(each.name, each.name, Use(each.vcpus, each.memory * MIB, 0)) for each in machines], providers


RULES = Rules(host_reserve=RESERVE * MIB, cpu_overcommit=OVERCOMMIT)


def problem_of(demands: list[Demand], providers: list[Provider]) -> tuple[Problem, dict[str, int]]:
    """The grid as a problem, and the number of each provider in it."""
    board = Board(demands, providers, Past(), RULES)
    given = read(board, demands, bundles(demands, board, settle(demands, board)), WEIGHTS)
    return given, {name: number for number, name in enumerate(board.accounts)}


def gap(given: Problem, where: t.Sequence[int]) -> float:
    """The most that our answer can be worse than the best, by CP-SAT's bound, as a part of its objective (the sum of
    squared shares)."""
    state = State(given, where)
    found = cp_sat.solve_part(
        state,
        range(len(given.rooms)),
        range(len(given.items)),
        seed=SEED,
        work=BOUND_SECONDS,
        seconds=BOUND_SECONDS,
        stay=True,
    )
    return (found.objective - found.bound) / found.objective


def row(case: str, who: str, metric: str, value: float, unit: str) -> Row:
    """One line of the table."""
    return {"area": "placement", "case": case, "who": who, "metric": metric, "value": value, "unit": unit}


def placed(number: int, rooms: int) -> list[Row]:
    """A batch on an empty grid."""
    names, machines, dummy = grid(number, rooms)
    demands, providers = ours(names, machines)
    case = f"place {number} machines on {rooms} providers"
    begin = time.monotonic()
    answers, report = improvement.place(demands, providers, Past(), RULES, within=WITHIN, seed=SEED, weights=WEIGHTS)
    seconds = time.monotonic() - begin
    where = {demand.name: answer.provider for demand, answer in zip(demands, answers) if answer.provider}
    given, numbers = problem_of(demands, providers)
    rows = [
        row(case, "virtuoso", "score", score(names, machines, where), ""),
        row(case, "virtuoso", "time", seconds, f"s ({report.engine})"),
        row(
            case,
            "virtuoso",
            "gap",
            100 * gap(given, [numbers[where[each.name]] for each in machines]),
            "% of CP-SAT's objective",
        ),
    ]
    theirs, seconds = hail(names, machines)
    if theirs is not None:
        rows.append(row(case, "ganeti hail", "score", score(names, machines, theirs), ""))
    return [*rows, row(case, "ganeti hail", "time", seconds, "s" if theirs is not None else "s, and no answer")]


def rebalanced(number: int, rooms: int, moves: int) -> list[Row]:
    """A random allocation, made more even."""
    names, machines, where = grid(number, rooms)
    given, numbers = problem_of(*ours(names, machines))
    case = f"rebalance {number} machines on {rooms} providers, {moves} moves"
    begin = time.monotonic()
    done = rebalance(given, [numbers[where[each.name]] for each in machines], moves, seed=SEED)
    seconds = time.monotonic() - begin
    after = {**where, **{machines[each].name: names[target] for each, target in done}}
    rows = [
        row(case, "virtuoso", "score", score(names, machines, after), ""),
        row(case, "virtuoso", "moves", len(done), ""),
        row(case, "virtuoso", "time", seconds, "s"),
        row(case, "floor", "score before", score(names, machines, where), ""),
    ]
    theirs, count, seconds = hbal(names, machines, where, moves)
    if theirs is not None:
        rows += [
            row(case, "ganeti hbal", "score", score(names, machines, theirs), ""),
            row(case, "ganeti hbal", "moves", count, ""),
        ]
    return [*rows, row(case, "ganeti hbal", "time", seconds, "s" if theirs is not None else "s, and no answer")]


def measure() -> list[Row]:
    """Scores, seconds and moves for each size."""
    rows: list[Row] = []
    for machines, providers, moves in SIZES:
        rows += placed(machines, providers) + rebalanced(machines, providers, moves)
    return rows
