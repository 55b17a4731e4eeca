# SPDX-License-Identifier: GPL-3.0-or-later
"""Run molecule's scenarios, and believe a verifier only when its tests ran: none, or a skipped one, is a failure."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

CHECKOUT = Path(__file__).resolve().parents[2]
EXTENSIONS = CHECKOUT / "extensions"
JUNIT = CHECKOUT / "build" / "junit"


def verdict(report: Path) -> str:
    """What is wrong with what the verifier reported; empty when nothing is."""
    if not report.exists():
        return "its verifier ran no pytest"
    tests = skipped = 0
    for suite in ElementTree.parse(report).iter("testsuite"):
        tests += int(suite.get("tests", 0))
        skipped += int(suite.get("skipped", 0))
    if skipped:
        return f"{skipped} of {tests} tests were skipped"
    return "" if tests else "its verifier found no test"


def run(scenario: str) -> str:
    """Run one scenario; the answer says what was wrong."""
    report = JUNIT / f"test-molecule-{scenario}.xml"
    report.unlink(missing_ok=True)
    env = dict(os.environ, PYTEST_ADDOPTS=f"-p no:cacheprovider --junitxml={report}")
    done = subprocess.run(["molecule", "test", "--scenario-name", scenario], cwd=EXTENSIONS, env=env,
                          stdin=subprocess.DEVNULL, check=False)
    return f"molecule ended with {done.returncode}" if done.returncode else verdict(report)


def main(names: list[str]) -> int:
    there = sorted(path.parent.name for path in EXTENSIONS.glob("molecule/*/molecule.yml"))
    unknown = sorted(set(names) - set(there))
    if unknown or not there:
        print(f"molecule: no scenario {', '.join(unknown)}; there are: {', '.join(there) or 'none'}", file=sys.stderr)
        return 1
    problems = {}
    for scenario in names or there:
        begin = time.monotonic()
        problem = run(scenario)
        print(f"molecule: {scenario}: {problem or 'passed'} ({time.monotonic() - begin:.0f} s)", flush=True)
        if problem:
            problems[scenario] = problem
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
