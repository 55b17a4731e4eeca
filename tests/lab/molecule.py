# SPDX-License-Identifier: GPL-3.0-or-later
"""Run molecule's scenarios, and believe a verifier only when its tests ran: none, or a skipped one, is a failure."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import yaml

CHECKOUT = Path(__file__).resolve().parents[2]
SCENARIOS = CHECKOUT / "extensions" / "molecule"
JUNIT = CHECKOUT / "build" / "junit"


def verdict(reports: list[Path], verifications: int) -> str:
    """What is wrong with what the verifier reported; empty when nothing is."""
    if len(reports) < verifications:
        return f"{len(reports)} of its {verifications} verifications ran pytest"
    tests = skipped = 0
    for report in reports:
        suites = list(ElementTree.parse(report).iter("testsuite"))
        tests += sum(int(suite.get("tests", 0)) for suite in suites)
        skipped += sum(int(suite.get("skipped", 0)) for suite in suites)
    if skipped:
        return f"{skipped} of {tests} tests were skipped"
    return "" if tests else "its verifier found no test"


def verifications(scenario: str) -> int:
    """How often the scenario's sequence verifies."""
    settings = yaml.safe_load((SCENARIOS / scenario / "molecule.yml").read_text(encoding="utf-8"))
    return sum(step.split()[0] == "verify" for step in settings["scenario"]["test_sequence"])


def run(scenario: str) -> str:
    """Run one scenario; the answer says what was wrong."""
    report = JUNIT / f"test-molecule-{scenario}.xml"
    # The scenarios' conftest.py numbers those of the second and later verifications.
    pattern = f"test-molecule-{scenario}.*xml"
    for stale in JUNIT.glob(pattern):
        stale.unlink()
    # Molecule remembers there that it has prepared the hosts, and then doesn't: the lab may have been remade since.
    memory = CHECKOUT / "build" / "molecule" / scenario / "ephemeral"
    shutil.rmtree(memory, ignore_errors=True)
    env = dict(
        os.environ,
        PYTEST_ADDOPTS=f"-p no:cacheprovider --junitxml={report}",
        MOLECULE_EPHEMERAL_DIRECTORY=str(memory),
        MOLECULE_COMMAND_BORDERS="false",
    )
    done = subprocess.run(
        ["molecule", "test", "--scenario-name", scenario], cwd=CHECKOUT, env=env, stdin=subprocess.DEVNULL, check=False
    )
    return (
        f"molecule ended with {done.returncode}"
        if done.returncode
        else verdict(sorted(JUNIT.glob(pattern)), verifications(scenario))
    )


def main(names: list[str]) -> int:
    there = sorted(path.parent.name for path in SCENARIOS.glob("*/molecule.yml"))
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
