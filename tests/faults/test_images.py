# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What takes a Debian guest with its agent, or a play that died: too slow for every change."""

from __future__ import annotations

import concurrent.futures
import json
import signal
import typing as t

import pytest
from overlays import lab
from test_transfer import SERVER, SIZE, Target, _images, _target, code
from walking import DEPOT, PROVIDERS, Grid, on_host, until

__all__ = ["_images", "_target"]


@pytest.fixture
def grid() -> t.Iterator[Grid]:
    grid = Grid("it-img")
    yield grid
    grid.clean()
    for host in (*PROVIDERS, SERVER):
        on_host(host, f"rm -f {DEPOT}/images/manifests/it-frozen@*; systemctl stop 'virtuoso-export-*'")


def agent(provider: str, name: str, command: str) -> t.Any:
    """The agent's answer, or None."""
    said = on_host(provider, f"virsh qemu-agent-command {name} '{json.dumps({'execute': command})}' || true")
    return json.loads(said)["return"] if said.strip() else None


def test_a_running_guest_is_captured_with_its_file_systems_frozen(grid: Grid):
    (name,) = grid.names(1)
    wanted = grid.machines(1, image="debian-12", memory="512 MiB")
    row = grid.play("deploy", machines=wanted, virtuoso_address_timeout=240).succeeded().row(name)
    provider = row["provider"]
    until("the agent answers", lambda: agent(provider, name, "guest-ping") is not None, deadline=120)
    done = grid.play("images", "-e", f"capture={name} image=it-frozen version=1").succeeded()
    (image,) = done.results("Capture machines")[provider]["images"]
    assert image["consistent"] == "filesystems"
    assert agent(provider, name, "guest-fsfreeze-status") == "thawed"
    assert set(done.row("it-frozen@1")["hosts"]) >= {provider, SERVER}


def exports() -> list[str]:
    """Units of exports, with the hosts that have them."""
    show = "systemctl list-units --plain --no-legend 'virtuoso-export-*'"
    return [f"{host}: {line}" for host in (*PROVIDERS, SERVER) for line in on_host(host, show).splitlines()]


def test_exports_of_a_play_that_died_go_with_the_machine(grid: Grid):
    (name,) = grid.names(1)
    for provider in PROVIDERS:
        on_host(provider, f"rm -f {DEPOT}/images/manifests/tiny@*")
    grid.play("images", "-e", "prune=true").succeeded()
    run = grid.start("deploy", machines=grid.machines(1, start="on_demand"))
    assert run.wait_for_task("Bring the images that machines page from"), run.wait().story()
    run.interrupt(signal.SIGKILL)
    assert len(exports()) == 2, "a source and a pager"
    grid.play("retire", "-e", f"machines={name}").succeeded()
    assert exports() == []


def test_a_source_that_loses_its_power_midway_is_told_and_gone_on_with(target: Target, images: dict[str, t.Any]):
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(target.get, images["1"], bandwidth="4 MiB", route="direct")
        until("some of it", lambda: target.came() >= SIZE * 2**20 // 4 or running.done(), 60, 0.1)
        lab("reboot", SERVER, "--grace", "0")
        result = running.result()
    assert result.get("failed") and code(result) == "source_unreachable" and SERVER in result["msg"]
    target.nothing()
    came = target.one(images["1"])
    assert came["resumed"] >= SIZE * 2**20 // 8
    assert came["resumed"] + came["content"] == SIZE * 2**20
    target.same(images["1"])
