# SPDX-License-Identifier: GPL-3.0-or-later
"""The information service on synthetic grids: inventories, questions, plays at once; and an inventory of a lab
provider's domains."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import statistics
import subprocess
import sys
import time
import typing as t
from pathlib import Path

from measure import CHECKOUT, Row

sys.path[:0] = [str(CHECKOUT / "build" / "collections"), str(CHECKOUT / "tests" / "support")]

WORK = CHECKOUT / "build" / "bench" / "information"
SEED = 2026
INVENTORIES = {10_000: 3, 50_000: 3}  # hosts, rounds
MACHINES = int(os.environ.get("BENCH_MACHINES", 100_000))
SIZES = (2, 3, 4, 5, 6)
ROUNDS = 15
EXACT_LIMIT = 20.0
FOUR = {"of": "machine", "same": ["network"], "sum": ["memory >= 512 MiB", "memory <= 1 GiB"], "within": "1 s"}
MIB = 2**20


def row(case: str, who: str, metric: str, value: float, unit: str = "s") -> Row:
    """A measurement of this area."""
    return {"area": "information", "case": case, "who": who, "metric": metric, "value": value, "unit": unit}


def measure() -> list[Row]:
    """All rows; those of a lab provider need the lab."""
    import information_domains

    return [*measure_without_lab(), *information_domains.measure()]


def measure_without_lab() -> list[Row]:
    """The rows that need nothing but the controller."""
    WORK.mkdir(parents=True, exist_ok=True)
    rows = []
    for hosts, rounds in INVENTORIES.items():
        rows += inventories(hosts, rounds)
    store = synthetic_store(MACHINES, WORK / f"grid-{MACHINES}.db")
    return [*rows, *one_host(store), *sets(store), *plays()]


def synthetic_store(machines: int, path: Path) -> Path:
    """A new store of a synthetic grid. An old file could be incomplete, or have another version."""
    from synthetic import Grid

    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()
    Grid(machines, seed=SEED).write(str(path))
    return path


# Inventories


def plain(value: t.Any) -> t.Any:
    """What ansible-inventory printed, without its marks of unsafe values."""
    if isinstance(value, dict):
        return (
            value["__ansible_unsafe"]
            if set(value) == {"__ansible_unsafe"}
            else {key: plain(item) for key, item in value.items()}
        )
    return [plain(item) for item in value] if isinstance(value, list) else value


def list_inventory(source: Path, output: Path, **environment: str) -> float:
    """Seconds of ``ansible-inventory --list``."""
    argv = [sys.executable, "-m", "ansible.cli.inventory", "-i", str(source), "--list", "--output", str(output)]
    begin = time.monotonic()
    done = subprocess.run(
        argv, cwd=CHECKOUT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=1800, check=False
    )
    seconds = time.monotonic() - begin
    if done.returncode:
        raise SystemExit(f"bench: ansible-inventory -i {source} failed\n{done.stderr[-2000:]}")
    return seconds


def same_hosts(listed: Path, folder: Path) -> dict[str, tuple[Path, dict[str, str]]]:
    """The hosts that our inventory listed, as the floor's file and as an INI file."""
    content_of = json.loads(listed.read_text(encoding="utf-8"))
    groups: dict[str, list[str]] = {}
    for group, content in content_of.items():
        for host in content.get("hosts", ()) if group != "_meta" else ():
            groups.setdefault(host, []).append(group)
    hosts = {host: plain(variables) for host, variables in content_of["_meta"]["hostvars"].items()}
    ready = [
        {"name": host, "groups": groups.get(host, []), "variables": variables} for host, variables in hosts.items()
    ]
    (folder / "hosts.floor.json").write_text(json.dumps(ready), encoding="utf-8")
    with open(folder / "hosts.ini", "w", encoding="utf-8") as file:
        for host, variables in hosts.items():
            words = " ".join(f"{name}={quoted(value)}" for name, value in variables.items())
            file.write(f"{host} {words}\n")
        for group in sorted({group for mine in groups.values() for group in mine}):
            file.write(f"[{group}]\n" + "".join(f"{host}\n" for host, mine in groups.items() if group in mine))
    floor = {
        "ANSIBLE_INVENTORY_ENABLED": "floor",
        "ANSIBLE_INVENTORY_PLUGINS": str(CHECKOUT / "tests" / "bench" / "plugins" / "inventory"),
    }
    return {
        "floor": (folder / "hosts.floor.json", floor),
        "INI": (folder / "hosts.ini", {"ANSIBLE_INVENTORY_ENABLED": "ini"}),
    }


def quoted(value: t.Any) -> str:
    """A value as an INI inventory takes it: a Python literal, quoted as a shell's word."""
    text = repr(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def inventories(hosts: int, rounds: int) -> list[Row]:
    """``ansible-inventory --list`` of one grid, three ways, in turn so that a busy machine is busy for all of them."""
    folder = WORK / str(hosts)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    synthetic_store(hosts, folder / "grid.db")
    (folder / "grid.yml").write_text("plugin: virtuoso.grid.grid\nstore: grid.db\n", encoding="utf-8")
    ours = (folder / "grid.yml", {})
    list_inventory(ours[0], folder / "list.json")
    ways = {"virtuoso": ours, **same_hosts(folder / "list.json", folder)}
    seconds: dict[str, list[float]] = {who: [] for who in ways}
    for number in range(rounds):
        for who, (source, environment) in ways.items():
            if who == "INI" and number:  # ten times slower than the others, so once is enough
                continue
            seconds[who].append(list_inventory(source, folder / f"{who}.json", **environment))
    expected = {host: plain(variables) for host, variables in hostvars(folder / "virtuoso.json").items()}
    if {host: plain(variables) for host, variables in hostvars(folder / "floor.json").items()} != expected:
        raise SystemExit("bench: the floor's hosts are not ours")
    return [
        row(f"inventory --list, {hosts} machines", who, "time", statistics.median(values))
        for who, values in seconds.items()
    ]


def hostvars(path: Path) -> dict[str, t.Any]:
    """Variables of each host in a list, without the file that each came from."""
    listed = json.loads(path.read_text(encoding="utf-8"))["_meta"]["hostvars"]
    return {
        host: {name: value for name, value in variables.items() if name not in ("inventory_file", "inventory_dir")}
        for host, variables in listed.items()
    }


# Questions


def best_and_median(work: t.Callable[[], t.Any], rounds: int = ROUNDS) -> tuple[float, float]:
    """The shortest and the median time; the first run warms up and doesn't count."""
    work()
    seconds = []
    for dummy in range(rounds):
        begin = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begin)
    return min(seconds), statistics.median(seconds)


ONE_HOST = """
SELECT host.name, host.uuid, site.name, host.state, host.memory, host.cpus FROM host JOIN site ON site.uuid = host.site
WHERE host.kind = 'machine' AND host.missing IS NULL AND host.uuid NOT IN (SELECT uuid FROM futures)
AND site.name = 'site03' AND host.memory >= 1073741824 AND host.cpus >= 4 ORDER BY host.memory, host.uuid LIMIT 1
"""


def one_host(path: Path) -> list[Row]:
    """The smallest host that meets three conditions, beside hand-written SQL on the same file."""
    from ansible_collections.virtuoso.grid.plugins.module_utils._information.find.answer import find
    from ansible_collections.virtuoso.grid.plugins.module_utils._information.store.database import Store

    asked = {
        "of": "machine",
        "where": ["site == site03", "memory >= 1 GiB", "cpus >= 4"],
        "order": ["memory"],
        "limit": 1,
    }

    def ours() -> str:
        return find(Store(str(path)), asked)["found"][0]["uuid"]

    def by_hand() -> str:
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            return connection.execute(ONE_HOST).fetchall()[0][1]
        finally:
            connection.close()

    if ours() != by_hand():
        raise SystemExit("bench: the two ways find different hosts")
    times = {"virtuoso": best_and_median(ours)[1], "hand-written SQL": best_and_median(by_hand)[1]}
    return [
        row(f"find one host by three conditions, {MACHINES} hosts", who, "time", value * 1000, "ms")
        for who, value in times.items()
    ]


EXACT_JOIN = """
SELECT count(*) FROM interface ia
JOIN interface ib ON ib.network = ia.network AND ib.host > ia.host
JOIN interface ic ON ic.network = ia.network AND ic.host > ib.host
JOIN interface id ON id.network = ia.network AND id.host > ic.host
JOIN host a ON a.uuid = ia.host JOIN host b ON b.uuid = ib.host
JOIN host c ON c.uuid = ic.host JOIN host d ON d.uuid = id.host
WHERE a.memory + b.memory + c.memory + d.memory BETWEEN 536870912 AND 1073741824
"""


def exact_join(path: Path) -> tuple[float, bool]:
    """Seconds of the whole join, and whether it ended by itself within the limit."""
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    begin = time.perf_counter()
    connection.set_progress_handler(lambda: time.perf_counter() - begin > EXACT_LIMIT, 10_000)
    try:
        connection.execute(EXACT_JOIN).fetchall()
        return time.perf_counter() - begin, True
    except sqlite3.OperationalError:
        return time.perf_counter() - begin, False
    finally:
        connection.close()


def check_sets(path: Path, found: list[dict[str, t.Any]], size: int) -> None:
    """Check each answer against the rows: so many different machines on one network, with the sum within its bounds."""
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    for answer in found:
        uuids = [member["uuid"] for member in answer["members"]]
        marks = ",".join("?" * len(uuids))
        rows = connection.execute(
            "SELECT h.memory, i.network FROM host h JOIN interface i ON i.host = h.uuid "
            f"WHERE h.kind = 'machine' AND h.uuid IN ({marks})",
            uuids,
        ).fetchall()
        total = sum(memory for memory, dummy in rows)
        if (
            len(set(uuids)) != size
            or len(rows) != size
            or len({network for dummy, network in rows}) != 1
            or not 512 * MIB <= total <= 1024 * MIB
        ):
            raise SystemExit(f"bench: not a valid answer: {answer}")
    connection.close()


def sets(path: Path) -> list[Row]:
    """The question for sets of two to six machines, in turn; beside the exact join for four, which has a time limit."""
    from ansible_collections.virtuoso.grid.plugins.module_utils._information.find.answer import find
    from ansible_collections.virtuoso.grid.plugins.module_utils._information.store.database import Store

    seconds: dict[int, list[float]] = {size: [] for size in SIZES}
    work: dict[int, list[float]] = {size: [] for size in SIZES}
    counts: dict[int, int] = {}
    rng = random.Random(SEED)
    for number in range(ROUNDS + 1):
        for size in SIZES:
            begin, spent = time.perf_counter(), time.process_time()
            result = find(Store(str(path)), {**FOUR, "size": size, "seed": rng.randrange(2**32)})
            if number:  # the first round warms up
                seconds[size].append(time.perf_counter() - begin)
                work[size].append(time.process_time() - spent)
            check_sets(path, result["found"], size)
            counts[size] = min(counts.get(size, 10**9), len(result["found"]))
    rows = []
    for size in SIZES:
        case = f"find {size} machines on one network, {MACHINES} machines, within 1 s"
        rows.append(row(case, "virtuoso", "time", statistics.median(seconds[size])))
        rows.append(row(case, "virtuoso", "longest", max(seconds[size])))
        rows.append(row(case, "virtuoso", "valid answers", counts[size], ""))
    took, ended = exact_join(path)
    who = "the exact join" if ended else "the exact join, not done"
    rows.append(row(f"find 4 machines on one network, {MACHINES} machines, within 1 s", who, "time", took))
    # They are a few milliseconds apart: on a busy machine the time mostly shows what else runs there.
    for metric, each in (("growth of time", seconds), ("growth of processor time", work)):
        growth = statistics.median(each[max(SIZES)]) / statistics.median(each[min(SIZES)]) - 1
        rows.append(row("find: from 2 to 6 machines in a set", "virtuoso", metric, growth * 100, "%"))
    return rows


# Plays at once


def plays() -> list[Row]:
    """Fifty plays that register, order and place at once, on both databases."""
    from plays import at_once
    from postgresql import Server

    rows = []
    path = WORK / "plays.db"
    for file in WORK.glob("plays.db*"):
        file.unlink()
    with Server() as server:
        for who, location in (("SQLite", str(path)), ("PostgreSQL", server.database())):
            begin = time.monotonic()
            outcome = at_once(location, plays=50, room=10)
            case = f"50 plays at once, {who}"
            rows.append(row(case, "virtuoso", "time", time.monotonic() - begin))
            rows.append(row(case, "virtuoso", "errors", len(outcome["errors"]), ""))
            lost = outcome["orders_lost"] + outcome["hosts_lost"] + outcome["samples_lost"]
            rows.append(row(case, "virtuoso", "lost", lost, ""))
            rows.append(row(case, "virtuoso", "placed, of 10 that fit", outcome["placed"], ""))
    return rows
