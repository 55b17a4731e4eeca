# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A benchmark that doesn't exist is an error that lists those that do; it is never an empty table."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

_BENCH = Path(__file__).resolve().parents[2] / "bench"


def run(*arguments, case=""):
    """The benchmarks as make runs them."""
    argv = [sys.executable, str(_BENCH / "bench.py"), *arguments]
    return subprocess.run(
        argv, env={**os.environ, "CASE": case}, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture(name="bench")
def _bench(monkeypatch, tmp_path):
    """The program with two areas: one with cases, one without."""
    monkeypatch.syspath_prepend(_BENCH)
    for name in ("bench", "choice", "measure"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    bench = importlib.import_module("bench")
    choice = importlib.import_module("choice")

    def rows(*cases):
        return [
            {"area": "any", "case": case, "who": "virtuoso", "metric": "time", "value": 1.0, "unit": "s"}
            for case in cases
        ]

    cut = types.SimpleNamespace(CASES=("slow-first", "slow-new", "first"))
    cut.measure = lambda: rows(*choice.chosen(cut.CASES))
    whole = types.SimpleNamespace(measure=lambda: rows("whole"))
    monkeypatch.setitem(sys.modules, "cut", cut)
    monkeypatch.setitem(sys.modules, "whole", whole)
    monkeypatch.setattr(bench, "AREAS", ("cut", "whole"))
    monkeypatch.setattr(bench, "HERE", tmp_path / "tests" / "bench")
    monkeypatch.setattr(bench, "OUTPUT", tmp_path / "build" / "bench.json")
    monkeypatch.setattr(bench.signal, "signal", lambda *dummy: None)
    return bench


@pytest.mark.parametrize(
    ("case", "arguments", "measured"),
    [
        ("", [], ["slow-first", "slow-new", "first", "whole"]),
        ("", ["cut"], ["slow-first", "slow-new", "first"]),
        ("slow", ["cut"], ["slow-first", "slow-new"]),
        ("first, slow-n", ["cut"], ["slow-new", "first"]),
        ("slow", [], ["slow-first", "slow-new"]),
        (",", ["whole"], ["whole"]),
    ],
)
def test_what_is_measured(bench, monkeypatch, case, arguments, measured):
    monkeypatch.setenv("CASE", case)
    assert bench.main(arguments) == 0
    assert [row["case"] for row in json.loads(bench.OUTPUT.read_text(encoding="utf-8"))] == measured


@pytest.mark.parametrize(("case", "arguments"), [("new", []), ("slow,new", ["cut"]), ("slow", ["whole"]), ("x", [])])
def test_an_unknown_case_measures_nothing(bench, monkeypatch, capsys, case, arguments):
    monkeypatch.setenv("CASE", case)
    assert bench.main(arguments) == 2 and not bench.OUTPUT.exists()
    said = capsys.readouterr()
    assert "no case begins with" in said.err and case.split(",")[-1] in said.err and said.out == ""
    if arguments != ["whole"]:
        assert "cut: slow-first, slow-new, first" in said.err
    if arguments != ["cut"]:
        assert "whole: only as a whole" in said.err


@pytest.mark.parametrize("area", ["images", "overlay", "migration", "life"])
def test_each_area_with_cases_lists_them(area):
    done = run(area, case="nothing")
    assert done.returncode == 2 and done.stdout == ""
    assert f"no case begins with nothing; there are:\n  {area}: " in done.stderr
    assert {"images": "slow-power-up", "overlay": "connect 32 sites", "migration": "ten live", "life": "power"}[
        area
    ] in done.stderr


def test_an_unknown_area_lists_the_areas():
    done = run("image")
    assert done.returncode == 2 and done.stdout == ""
    assert "no area image; there are: machines, images, placement" in done.stderr


def test_the_cases_of_images_are_those_that_it_runs():
    text = (_BENCH / "images.py").read_text(encoding="utf-8")
    cases = text.split("CASES = (")[1].split(")")[0].replace('"', "").split(", ")
    assert len(cases) == 7 and all(f'        "{case}": lambda' in text for case in cases)
