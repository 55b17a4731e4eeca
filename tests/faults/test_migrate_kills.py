# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kill matrix of moves: each victim at each point of each mode, then the same command again. A table at the end
tells what became of each."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
import typing as t

import pytest
from moving import LAB, MODES, POINTS, VICTIMS, Bed, heal, hit, joined
from walking import CHECKOUT, PROVIDERS, Grid, until

TABLE = CHECKOUT / "build" / "migrate-kills.txt"

CASES = [
    (mode, victim, number)
    # One that is broken off has been at each victim of each mode.
    for number in range(max(map(len, POINTS.values())))
    for mode in MODES
    for victim in VICTIMS
    # A machine that is shut down has no QEMU.
    if number < len(POINTS[mode]) and not (mode == "cold" and victim.endswith("qemu"))
]


@pytest.fixture(scope="module", name="bed")
def _bed() -> t.Iterator[Bed]:
    grid = Grid("it-kills", machine={"memory": "96 MiB", "display": "none"})
    key = (LAB / "id_ed25519.pub").read_text(encoding="ascii").strip()
    rows: list[str] = []
    try:
        with joined():
            users = [{"name": "alice", "ssh_authorized_keys": [key]}]
            machines = grid.machines(1, users=users)
            grid.play("deploy", "--limit", PROVIDERS[0], machines=machines, virtuoso_screenshots=False).succeeded()
            bed = Bed(grid, grid.names(1)[0])
            bed.rows = rows  # type: ignore[attr-defined]
            yield bed
    finally:
        grid.clean()
        print("\n" + "\n".join(rows))


def test_there_are_sixty_cases():
    assert len(CASES) >= 60
    assert all(len(POINTS[mode]) >= 5 for mode in MODES)


def recover(bed: Bed) -> None:
    """One case that failed is not to be the next one's failure too."""
    for provider in PROVIDERS:
        heal(provider)
    with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
        until("one copy", lambda: len(bed.grid.domains().get(bed.name, [])) == 1, 150, 3)
        bed.finish(bed.place[0])


@pytest.mark.parametrize(("mode", "victim", "number"), CASES)
def test_one_copy_with_all_its_writes(bed: Bed, mode: str, victim: str, number: int):
    point = POINTS[mode][number]
    begin = time.monotonic()
    outcome = "FAILED"
    try:
        outcome = hit(bed, mode, victim, point, CASES.index((mode, victim, number)) + 1)
    except Exception as exc:
        outcome = f"FAILED: {str(exc)[:2000]}"
        recover(bed)
        raise
    finally:
        seconds = time.monotonic() - begin
        row = f"{mode:10}  {victim:15}  {point[0][:24]:24} +{point[1]:.1f} s  {seconds:5.1f} s  {outcome}"
        bed.rows.append(row)  # type: ignore[attr-defined]
        with open(TABLE, "a", encoding="utf-8") as file:
            file.write(row + os.linesep)
