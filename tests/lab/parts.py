# SPDX-License-Identifier: GPL-3.0-or-later
"""Run make targets one after the other, all of them, and end with one count of what passed and failed.

A target that writes JUnit files counts with its tests, any other as one. Skipped tests are failures here: a test that
can't run where everything is installed is missing something.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

JUNIT = Path("build/junit")


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


def main(parts: list[str]) -> int:
    JUNIT.mkdir(parents=True, exist_ok=True)
    rows = []
    for part in parts:
        for stale in JUNIT.glob(f"{part}*.xml"):
            stale.unlink()
        print(f"== {part}", flush=True)
        begin = time.monotonic()
        done = subprocess.run(["make", part], stdin=subprocess.DEVNULL, check=False)
        rows.append((part, time.monotonic() - begin, *counts(part, done.returncode)))
    print("\npart               seconds  passed  failed")
    for part, seconds, passed, failed in rows:
        print(f"{part:17} {seconds:8.1f} {passed:7} {failed:7}")
    failures = sum(row[3] for row in rows)
    print(f"{sum(row[2] for row in rows)} passed, {failures} failed", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
