# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the benchmarks beside their peers, print a table, write build/bench.json.

Usage: bench.py [--without-lab] [AREA]. An area is a module of this folder with a function ``measure() -> list of Row``,
and, if a part of it needs no lab, ``measure_without_lab()``. What :mod:`choice` doesn't know is an error.
"""

from __future__ import annotations

import importlib
import json
import signal
import sys
import time
from pathlib import Path

import choice
from measure import Row

HERE = Path(__file__).resolve().parent
OUTPUT = HERE.parents[1] / "build" / "bench.json"
AREAS = ("machines", "images", "placement", "information", "overlay", "migration", "life")


def ratio(row: Row, rows: list[Row]) -> str:
    """This value divided by ours, of the same area, case and metric; empty if there is none."""
    own = [
        other
        for other in rows
        if other["who"] == "virtuoso" and all(other[key] == row[key] for key in ("area", "case", "metric"))
    ]
    if row["who"] == "virtuoso" or not own or not own[0]["value"]:
        return ""
    return f"{row['value'] / own[0]['value']:.2f} x"


def show(rows: list[Row]) -> None:
    """Print the table: one line for each measurement, with its ratio to ours."""
    head = ("AREA", "CASE", "WHO", "METRIC", "VALUE", "RATIO TO OURS")
    cells = [
        (row["area"], row["case"], row["who"], row["metric"], f"{row['value']:.2f} {row['unit']}", ratio(row, rows))
        for row in rows
    ]
    widths = [max(len(line[index]) for line in [head, *cells]) for index in range(len(head))]
    for line in [head, *cells]:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths)).rstrip())


def main(arguments: list[str]) -> int:
    """Measure the areas asked for, or all; returns the exit status."""
    function = "measure_without_lab" if "--without-lab" in arguments else "measure"
    wanted = [argument for argument in arguments if argument != "--without-lab"] or list(AREAS)
    try:
        choice.check_areas(wanted, AREAS)
        modules = {area: importlib.import_module(area) for area in wanted}
        areas = choice.areas_to_measure({area: getattr(module, "CASES", ()) for area, module in modules.items()})
    except choice.UnknownChoice as exc:
        print(f"bench: {exc}", file=sys.stderr)
        return 2
    # Clean up when terminated: a lab whose interfaces are left without offload is slow for everything afterwards.
    signal.signal(signal.SIGTERM, lambda *dummy: sys.exit(143))
    rows: list[Row] = []
    for area in areas:
        begin = time.monotonic()
        print(f"bench: {area}...", flush=True)
        rows += getattr(modules[area], function)()
        print(f"bench: {area} took {time.monotonic() - begin:.0f} s", flush=True)
    OUTPUT.parent.mkdir(exist_ok=True)
    OUTPUT.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    show(rows)
    print(f"bench: written to {OUTPUT.relative_to(HERE.parents[1])}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
