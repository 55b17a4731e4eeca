# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Machines move between a Debian 12 and a Debian 13 provider, by the playbook: live, asleep and shut down, many at
once, and hit on their way."""

from __future__ import annotations

import re
import subprocess
import tempfile
import time
import typing as t

import pytest
from conftest import task
from moving import LAB, POINTS, Bed, Writer, gate, hit, joined, other
from walking import DEPOT, PROVIDERS, Grid, machine_files, on_host, until

QUIET = {"virtuoso_screenshots": False}


@pytest.fixture(scope="module", name="bed")
def _bed() -> t.Iterator[Bed]:
    """A running machine on the first provider, whose network reaches over to the second."""
    grid = Grid("it-move", machine={"memory": "96 MiB", "display": "none"})
    key = (LAB / "id_ed25519.pub").read_text(encoding="ascii").strip()
    try:
        with joined():
            users = [{"name": "alice", "ssh_authorized_keys": [key]}]
            grid.play("deploy", "--limit", PROVIDERS[0], machines=grid.machines(1, users=users), **QUIET).succeeded()
            yield Bed(grid, grid.names(1)[0])
    finally:
        grid.clean()


class Ping:
    """A ping every 10 ms from the first provider to a guest."""

    def __init__(self, address: str) -> None:
        lab = str(LAB.parents[1] / "tests" / "lab" / "lab.py")
        # Into a file: a pipe that nobody empties is full after some seconds, and what comes later is lost.
        self.output = tempfile.TemporaryFile("a+", encoding="utf-8")  # pylint: disable=consider-using-with
        self.process = subprocess.Popen(  # pylint: disable=consider-using-with
            ["python3", lab, "ssh", gate(address), f"ping -D -i 0.01 {address}"],
            stdin=subprocess.DEVNULL,
            stdout=self.output,
            text=True,
        )
        until("the first answer", lambda: self._times() != [])

    def _times(self) -> list[float]:
        self.output.seek(0)
        return [
            float(found) for found in re.findall(r"^\[([0-9.]+)\] \d+ bytes from", self.output.read(), re.MULTILINE)
        ]

    def silence(self) -> float:
        """End it; the longest time without an answer, in milliseconds."""
        ended = time.time()
        self.process.terminate()
        self.process.wait(10)
        times = self._times()
        self.output.close()
        assert len(times) > 50 and ended - times[-1] < 5, "the ping ended before the move did"
        return max(after - before for before, after in zip(times, times[1:])) * 1000


def fly(bed: Bed) -> tuple[float, float]:
    """Move the machine to the other provider while it writes and is pinged; the longest silence and libvirt's downtime,
    milliseconds."""
    source = bed.place[0]
    target = other(source)
    ping, writer = Ping(bed.address), Writer(bed.address, f"to-{target}")
    run = bed.grid.play("migrate", "-e", f"machines={bed.name}", "-e", f"to={target}").succeeded()
    assert bed.whole(target) == "running"
    row = run.row(bed.name)
    assert row["actions"] == ["migrate live"] and row["provider"] == target
    assert writer.alive, "the connection broke"
    # A moment at the target
    written = len(writer.written())
    until("more writes at the target", lambda: len(writer.written()) > written + 3, 20)
    last = writer.stop()
    assert writer.written()[:last] == list(range(1, last + 1))
    silence, downtime = ping.silence(), float(row["stats"]["downtime"])
    print(f"{source} to {target}: silent for {silence:.0f} ms, downtime {downtime:.0f} ms, {row['stats']}")
    return silence, downtime


def test_live_there_and_back_nothing_is_lost(bed: Bed):
    source, target = PROVIDERS
    foretold = bed.grid.play("migrate", "--check", "-e", f"machines={bed.name}", "-e", f"to={target}").succeeded()
    assert "migrate live" in foretold.row(bed.name)["actions"] and "pc-q35" in foretold.row(bed.name)["plan"]
    assert bed.place == (source, "running") and bed.uuid not in machine_files(target)
    for dummy in range(2):
        silence, downtime = fly(bed)
        assert silence <= 2 * downtime + 100
    assert bed.place[0] == source
    again = bed.grid.play("migrate", "-e", f"machines={bed.name}", "-e", f"to={source}").succeeded()
    assert not any(again.changed.values()), again.story()
    # The inventory goes by the machine's new provider.
    assert bed.grid.rows("SELECT generation FROM host WHERE name = ?", bed.name)[0]["generation"] == 3


def test_asleep_and_shut_down(bed: Bed):
    source = bed.place[0]
    target = other(source)
    writer = Writer(bed.address, "asleep")
    bed.grid.play("migrate", "--limit", bed.name, "-e", f"to={target}", "-e", "mode=hibernated").succeeded()
    assert bed.whole(target) == "running" and writer.alive
    last = writer.stop()
    assert writer.written()[:last] == list(range(1, last + 1))
    bed.power("stopped")
    on_host(target, f"qemu-io -f qcow2 -c 'write -P 77 70M 256k' {DEPOT}/machines/{bed.uuid}/disk.qcow2")
    # Nobody says where to: there is one other provider.
    run = bed.grid.play("migrate", "-e", f"machines={bed.name}").succeeded()
    assert run.row(bed.name)["actions"] == ["migrate cold"] and bed.whole(source) == "shut off"
    said = on_host(source, f"qemu-io -f qcow2 -c 'read -P 77 70M 256k' {DEPOT}/machines/{bed.uuid}/disk.qcow2")
    assert "failed" not in said
    bed.power("running")
    writer.move_to(bed.address)
    assert writer.written()[:last] == list(range(1, last + 1))


def test_what_cannot_go_is_refused_before_anything_is_touched(bed: Bed):
    source = bed.place[0]
    target = other(source)

    def code(*words: str, **variables: t.Any) -> str:
        run = bed.grid.play("migrate", "-e", f"machines={bed.name}", *words, **variables)
        assert run.returncode != 0
        return run.code(bed.name)

    to = ["-e", f"to={target}"]
    assert code("-e", "to=nowhere") == "no_such_provider"
    assert code(*to, "-e", "mode=cold") == "wrong_state"
    assert code(*to, virtuoso_placement_reserve="900 GiB") == "no_memory"
    xml = "<disk type='block' device='cdrom'><source dev='/dev/null'/><target dev='sdz' bus='scsi'/><readonly/></disk>"
    on_host(source, f'echo "{xml}" > /run/it.xml && virsh attach-device {bed.name} /run/it.xml --live', check=False)
    if "sdz" in on_host(source, f"virsh domblklist {bed.name}"):
        assert code(*to) == "device_tied"
        on_host(source, f"virsh detach-disk {bed.name} sdz --live", check=False)
    on_host(target, "virsh net-destroy virtuoso")
    try:
        assert code(*to) == "network_missing"
    finally:
        on_host(target, "virsh net-start virtuoso && ip link set itmove master virtuoso0")
    assert "No such machine" in bed.grid.play("migrate", "-e", "machines=nobody", *to).story()
    assert bed.place == (source, "running") and bed.uuid not in machine_files(target)


@pytest.mark.parametrize(("mode", "victim", "point"), [("live", "target_libvirtd", 3), ("hibernated", "controller", 3)])
def test_hit_on_its_way(bed: Bed, mode: str, victim: str, point: int):
    print(hit(bed, mode, victim, POINTS[mode][point], point + 10))


def test_an_old_copy_stays_off_and_is_told(bed: Bed):
    """The source died after its copy was marked, and comes back when the machine is elsewhere; so does a copy that
    nobody marked."""
    source, state = bed.place
    target = other(source)
    if state == "running":
        bed.power("stopped")
    old, directory = "/run/it-old.xml", f"{DEPOT}/machines/{bed.uuid}"
    on_host(source, f"virsh dumpxml --inactive {bed.name} > {old}; cp -a {directory} {DEPOT}/machines/.it-old")
    bed.grid.play("migrate", "-e", f"machines={bed.name}", "-e", f"to={target}").succeeded()
    back = f"cp -a {DEPOT}/machines/.it-old {directory}; virsh define {old}"
    try:
        on_host(source, back)
        run = bed.grid.play("migrate", "-e", f"machines={bed.name}", "-e", f"to={target}")
        assert run.code(bed.name) == "stale_generation" and source in run.report["msg"]
        assert on_host(source, f"virsh domstate {bed.name}").strip() == "shut off"
        generation = re.search(r'generation="(\d+)"', on_host(source, f"cat {old}"))
        assert generation is not None
        mark = f'<virtuoso:moving generation="{int(generation[1]) + 1}" to="{target}" attempt="it" autostart="yes"/>'
        on_host(
            source, f"sed -i -e 's#</virtuoso:machine>#{mark}&#' -e 's#/disk.qcow2#&.moving#' {old}; virsh define {old}"
        )
        assert "rror" in on_host(source, f"virsh start {bed.name} 2>&1", check=False)
        # The machine by its name on its old host is refused as well.
        args = {"state": "running", "machines": [{"name": bed.name}]}
        assert task(source, "virtuoso.grid.machine", args)["machines"][0]["failure"]["code"] == "stale_generation"
        bed.grid.play("refresh", virtuoso_refresh_latency=False).succeeded()
        assert bed.whole(target) == "shut off"
    finally:
        on_host(source, f"virsh undefine {bed.name}; rm -rf {directory} {DEPOT}/machines/.it-old", check=False)


def test_ten_machines_in_one_play():
    grid = Grid("it-ten", machine={"memory": "48 MiB", "display": "none", "image": "tiny"})
    try:
        names = grid.names(10)
        grid.play("deploy", "--limit", PROVIDERS[0], machines=grid.machines(10), virtuoso_address_timeout=0, **QUIET)
        run = grid.play("migrate", "-e", "machines=all", "-e", f"to={PROVIDERS[1]}").succeeded()
        grid.running_once(names)
        assert {grid.domains()[name][0][0] for name in names} == {PROVIDERS[1]}
        assert {run.row(name)["actions"][0] for name in names} == {"migrate live"}
    finally:
        grid.clean()
