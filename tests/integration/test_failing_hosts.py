# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host of the grid fails: its disk is full, its libvirtd is down, it can't be reached. The rest is served, and later
all is."""

from __future__ import annotations

import contextlib
import json
import typing as t

import pytest
from conftest import task
from walking import DEPOT, LAB, PROVIDERS, Grid, Run, machine_files, on_host, staged_images

FULL = "/var/lib/virtuoso-full"
NOBODY = "198.18.0.250"

# Stopping the daemon leaves guests alone; its sockets would start it again. If the test is killed, a timer does so.
SOCKETS = "libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket"
TIMER = "it-down-end"
STOP = (
    f"systemd-run --quiet --unit {TIMER} --on-active=300 systemctl start {SOCKETS}"
    f" && systemctl stop libvirtd.service {SOCKETS}"
)
START = f"systemctl stop {TIMER}.timer; systemctl start {SOCKETS} libvirtd.service && virsh list >/dev/null"

# libvirtd may be in a mount namespace that was made before the small depot.
SEE = "systemctl restart libvirtd.service && virsh list >/dev/null"


@contextlib.contextmanager
def without_libvirtd(provider: str) -> t.Iterator[None]:
    on_host(provider, STOP)
    try:
        yield
    finally:
        on_host(provider, START)


@contextlib.contextmanager
def small_depot(provider: str, size: str) -> t.Iterator[None]:
    """A depot on a file system of its own."""
    forget = f"umount -l {FULL} 2>/dev/null; rmdir {FULL} 2>/dev/null; true"
    on_host(provider, f"{forget}; mkdir -p {FULL} && mount -t tmpfs -o size={size},mode=0711 tmpfs {FULL} && {SEE}")
    try:
        yield
    finally:
        on_host(provider, forget)


def leave_free(provider: str, kib: int) -> None:
    """Fill the small depot up to so many KiB."""
    free = f"free=$(df --output=avail -k {FULL} | tail -n 1)"
    on_host(provider, f"{free}; head -c $(( (free - {kib}) * 1024 )) /dev/zero > {FULL}/ballast")


def bring_image(provider: str) -> None:
    """Have the newest image tiny in the small depot."""
    manifest = json.loads(on_host("home1", f"cat $(ls -t {DEPOT}/images/manifests/tiny@* | head -n 1)"))
    image = {"name": f"tiny@{manifest['version']}", "digest": manifest["layers"][-1]}
    source = {"name": "home1", "host": "198.18.0.11"}
    came = task(provider, "virtuoso.grid.image_transfer", {"path": FULL, "source": source, "images": [image]})
    assert not came.get("failed"), came


def fill_after_the_look(grid: Grid, provider: str, kib: int) -> Run:
    """A deployment to one provider whose depot fills up after it was found large enough."""
    run = grid.start("deploy", "--limit", provider, machines=grid.machines(1))
    assert run.wait_for_task("Register the providers"), run.wait().story()
    leave_free(provider, kib)
    return run.wait()


@pytest.mark.each
def test_a_disk_full_midway_loses_nothing(make_grid):
    provider = PROVIDERS[1]
    grid: Grid = make_grid("it-full", hosts={provider: {"virtuoso_depot": FULL}})
    (name,) = grid.names(1)
    with small_depot(provider, "256m"):
        try:
            # 4 MiB are less than the image
            run = fill_after_the_look(grid, provider, 4 * 1024)
            assert run.returncode != 0
            assert run.code(name) == "disk_full"
            assert name in run.report["msg"] and provider in run.report["msg"] and FULL in run.report["msg"]
            assert run.failures()[name]["remedy"] in run.report["msg"]
            assert on_host(provider, f"find {FULL} -name '*.qcow2*' -size +0").split() == []
            assert grid.domains() == {}

            # now the image is there, but there is no room for the machine's files
            on_host(provider, f"rm {FULL}/ballast")
            bring_image(provider)
            run = fill_after_the_look(grid, provider, 24)
            assert run.returncode != 0
            assert run.code(name) == "disk_full"
            assert run.failures()[name]["remedy"] in run.report["msg"]
            assert machine_files(provider, FULL) == set()
            assert grid.domains() == {}

            on_host(provider, f"rm {FULL}/ballast")
            run = grid.play("deploy", "--limit", provider, machines=grid.machines(1)).succeeded()
            assert run.row(name)["state"] == "running"
            assert {place for places in grid.domains().values() for place in places} == {(provider, "running")}
            assert staged_images(provider, FULL) == set()
        finally:
            grid.clean()


@pytest.mark.each
def test_libvirtd_stopped(make_grid):
    grid: Grid = make_grid("it-down")
    first, second = grid.names(2)
    other, stopped = PROVIDERS
    with without_libvirtd(stopped):
        # Whatever has no place yet goes elsewhere; the provider's trouble is told.
        run = grid.play("deploy", machines=grid.machines(1)).succeeded()
        assert run.row(first)["provider"] == other
        assert "libvirt" in run.row(first)["reasons"][stopped]
    run = grid.play("deploy", machines=grid.machines(2), virtuoso_only=[second]).succeeded()
    assert run.row(second)["provider"] == stopped, "the emptier provider should have it"

    third = {"name": "it-down-3", **grid.machine}
    with without_libvirtd(stopped):
        run = grid.play("deploy", machines=[*grid.machines(2), third])
        assert run.returncode != 0
        assert {name: failure["code"] for name, failure in run.failures().items()} == {second: "provider_unreachable"}
        assert stopped in run.row(second)["msg"] and second in run.row(second)["msg"]
        assert run.row("it-down-3")["provider"] == other
        power = grid.play("power", "-e", "machines=all", "-e", "state=running")
        assert power.returncode != 0
        assert {name: failure["code"] for name, failure in power.failures().items()} == {second: "libvirt_unreachable"}
        gone = grid.play("retire", "-e", f"machines={second}")
        assert gone.returncode != 0 and second in grid.uuids(), "a machine was forgotten that may still be there"

    again = grid.play("deploy", machines=[*grid.machines(2), third]).succeeded()
    assert not any(again.changed.values())
    grid.running_once([first, second, "it-down-3"])


def test_a_provider_that_nobody_reaches(make_grid):
    # provider3 is provider2 by another name, until its address is taken away
    host = {
        "ansible_host": "provider2.virtuoso.test",
        "ansible_become_password": (LAB / "sudo_password").read_text(encoding="ascii"),
        "virtuoso_site": "site-c",
        "ansible_timeout": 3,
        "ansible_ssh_retries": 0,
    }
    grid: Grid = make_grid("it-away", hosts={"provider3": host})
    first, second = grid.names(2)
    run = grid.play("deploy", "--limit", "provider3", machines=grid.machines(1)).succeeded()
    assert run.row(first)["provider"] == "provider3"

    grid.set_hosts({"provider3": {**host, "ansible_host": NOBODY}})
    run = grid.play("deploy", "--limit", "provider1,provider3", machines=grid.machines(2))
    assert run.returncode != 0
    assert {name: failure["code"] for name, failure in run.failures().items()} == {first: "provider_unreachable"}
    assert "provider3" in run.row(first)["msg"] and run.row(first)["failure"]["remedy"] in run.report["msg"]
    assert run.row(second)["provider"] == "provider1"
    assert "provider3" in run.row(second)["reasons"]
    assert {name: [place for place, _state in places] for name, places in grid.domains().items()} == {
        first: ["provider2"],
        second: ["provider1"],
    }

    run = grid.play("retire", "-e", f"machines={first}")
    assert run.returncode != 0
    assert run.code(first) == "provider_unreachable"
    assert first in grid.uuids()

    grid.set_hosts({"provider3": host})
    run = grid.play("deploy", "--limit", "provider1,provider3", machines=grid.machines(2)).succeeded()
    assert run.actions() == set()
    assert {row["state"] for row in run.report["machines"]} == {"running"}


def test_an_image_server_that_is_away(make_grid):
    """Ansible ends a play for all hosts where a task that runs once doesn't reach its host."""
    away = {"ansible_host": NOBODY, "virtuoso_site": "site-c", "ansible_timeout": 3, "ansible_ssh_retries": 0}
    grid: Grid = make_grid("it-serverless", hosts={"provider3": away})
    first, second, third = grid.names(3)
    here = ("--limit", PROVIDERS[0])
    grid.play("deploy", *here, machines=grid.machines(1)).succeeded()
    nowhere = {"name": third, **grid.machine, "image": "sha256:" + "0" * 64}
    run = grid.play("deploy", *here, machines=[*grid.machines(2), nowhere], virtuoso_image_server="provider3")
    assert run.returncode != 0
    assert {name: failure["code"] for name, failure in run.failures().items()} == {third: "image_server_unreachable"}
    assert "provider3" in run.row(third)["msg"]
    assert run.row(first)["state"] == run.row(second)["state"] == "running"
    grid.running_once([first, second])
