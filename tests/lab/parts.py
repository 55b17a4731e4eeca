# SPDX-License-Identifier: GPL-3.0-or-later
"""Run make targets, all of them, and end with one count of what passed and failed.

Two lanes, side by side: what needs the lab's hosts waits for them most of the time, and what only needs the controller,
or hosts of its own, runs meanwhile. What the second lane says is printed when a part of it has ended.

A target that writes JUnit files counts with its tests, any other as one. Skipped tests are failures here: a test that
can't run where everything is installed is missing something.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import typing as t
from pathlib import Path
from xml.etree import ElementTree

JUNIT = Path("build/junit")
LOGS = Path("build/parts")
MOLECULE = "test-molecule-"

Row = t.Tuple[str, float, int, int]


def command(part: str) -> list[str]:
    """The make command of a part; ``test-molecule-NAME`` is one scenario."""
    return (
        ["make", "test-molecule", f"SCENARIO={part[len(MOLECULE) :]}"] if part.startswith(MOLECULE) else ["make", part]
    )


def counts(part: str, returncode: int) -> tuple[int, int]:
    """How many tests of a part passed and failed."""
    passed = failed = 0
    for report in sorted(JUNIT.glob(f"{part}*.xml")):
        for suite in ElementTree.parse(report).iter("testsuite"):
            total, *bad = (int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped"))
            passed += total - sum(bad)
            failed += sum(bad)
    if returncode and not failed:
        failed = 1
    return (passed, failed) if passed or failed else (1, 0)


def run(part: str, log: Path | None) -> Row:
    """Run a part. :param log: where its output goes; the terminal without one."""
    for stale in JUNIT.glob(f"{part}*.xml"):
        stale.unlink()
    begin = time.monotonic()
    if log is None:
        print(f"== {part}", flush=True)
        done = subprocess.run(command(part), stdin=subprocess.DEVNULL, check=False)
    else:
        with open(log, "w", encoding="utf-8") as file:
            done = subprocess.run(
                [*command(part), "APART=1"],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                check=False,
            )
    return part, time.monotonic() - begin, *counts(part, done.returncode)


def beside(parts: t.Sequence[str], rows: list[Row]) -> None:
    """The second lane."""
    for part in parts:
        log = LOGS / f"{part}.log"
        row = run(part, log)
        rows.append(row)
        print(
            f"\n== {part}, which ran beside\n{log.read_text(encoding='utf-8', errors='replace')}== end of {part}",
            flush=True,
        )


def main(arguments: list[str]) -> int:
    JUNIT.mkdir(parents=True, exist_ok=True)
    LOGS.mkdir(parents=True, exist_ok=True)
    place = arguments.index("--beside") if "--beside" in arguments else len(arguments)
    first, second = arguments[:place], arguments[place + 1 :]
    rows: list[Row] = []
    lane = threading.Thread(target=beside, args=(second, rows))
    lane.start()
    rows += [run(part, None) for part in first]
    lane.join()
    width = max(len(part) for part in (*first, *second))
    print(f"\n{'part':{width}}  seconds  passed  failed")
    for part, seconds, passed, failed in rows:
        print(f"{part:{width}} {seconds:8.1f} {passed:7} {failed:7}")
    failures = sum(row[3] for row in rows)
    print(f"{sum(row[2] for row in rows)} passed, {failures} failed", flush=True)
    return 1 if failures or len(rows) != len(first) + len(second) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
