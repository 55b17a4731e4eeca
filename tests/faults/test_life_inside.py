# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes of a running machine as its guest sees them: ``tiny``, and ``debian-12`` with its agent, which also grows its
file system and is told the time."""

from __future__ import annotations

import subprocess
import time
import typing as t

import pytest
from conftest import task
from moving import LAB, Writer
from walking import DEPOT, PROVIDERS, Grid, on_host, until

GIB, MIB = 2**30, 2**20
NETWORK = "it-plug"
_XML = (
    f"<network><name>{NETWORK}</name><bridge name='virplug0'/><ip address='198.18.203.1' netmask='255.255.255.0'>"
    "<dhcp><range start='198.18.203.10' end='198.18.203.250'/></dhcp></ip></network>"
)


class Guest(Writer):
    """A guest that is asked things."""

    def __init__(self, provider: str, name: str, user: str) -> None:  # pylint: disable=super-init-not-called
        self.provider, self.name, self.user = provider, name, user
        self.address = self.facts()["addresses"][0]

    def facts(self, **options: t.Any) -> t.Any:
        args = {"path": DEPOT, "machines": [self.name], "wait_for_address": 60, **options}
        return task(self.provider, "virtuoso.grid.machine_info", args)["machines"][0]

    def says(self, command: str) -> str:
        """What a command says in the guest."""

        def probe() -> str | None:
            argv = self._argv(self.address)
            argv[-1] = f"{self.user}@{self.address}"
            done = subprocess.run(
                [*argv, command], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
            )
            return done.stdout.strip() or "-" if done.returncode == 0 else None

        return str(until(f"the guest's answer to {command}", probe, 120, 2))

    def memory(self) -> int:
        """KiB that its kernel has."""
        return int(self.says("grep MemTotal /proc/meminfo").split()[1])


@pytest.fixture(scope="module", name="network")
def _network() -> t.Iterator[str]:
    for host in PROVIDERS:
        on_host(host, f"virsh -q net-define /dev/stdin <<'END'\n{_XML}\nEND\nvirsh -q net-start {NETWORK}")
    yield NETWORK
    for host in PROVIDERS:
        on_host(host, f"virsh -q net-destroy {NETWORK}; virsh -q net-undefine {NETWORK}", check=False)


def _deployed(name: str, provider: str, user: str, **machine: t.Any) -> tuple[Grid, t.Callable[..., t.Any]]:
    key = (LAB / "id_ed25519.pub").read_text(encoding="ascii").strip()
    grid = Grid(name, machine={"display": "none", "users": [{"name": user, "ssh_authorized_keys": [key]}], **machine})

    def deploy(**changes: t.Any) -> t.Any:
        variables = {"virtuoso_screenshots": False, "virtuoso_address_timeout": 280, "virtuoso_grow_filesystem": True}
        run = grid.play("deploy", "--limit", provider, machines=grid.machines(1, **changes), **variables).succeeded()
        return run.row(grid.names(1)[0])

    return grid, deploy


def _deaf(grid: Grid, guest: Guest) -> None:
    """A guest that doesn't hear the button is asked until the deadline, and goes on; it is forced only on word, and
    that boots it anew."""
    guest.says("mv /etc/acpi/PWRF /etc/acpi/unheard")
    args = {"path": DEPOT, "state": "stopped", "timeout": 8, "machines": [{"name": guest.name}]}
    boot, begin = guest.says("cat /proc/sys/kernel/random/boot_id"), time.monotonic()
    (row,) = task(guest.provider, "virtuoso.grid.machine", args)["machines"]
    assert row["failed"] and row["failure"]["code"] == "shutdown_refused" and time.monotonic() - begin >= 8, row
    assert (
        "force" in row["msg"]
        and guest.facts()["state"] == "running"
        and guest.says("cat /proc/sys/kernel/random/boot_id") == boot
    )
    (row,) = task(guest.provider, "virtuoso.grid.machine", {**args, "timeout": 2, "force": True})["machines"]
    assert (row["changed"], row["state"]) == (True, "stopped"), row
    assert task(guest.provider, "virtuoso.grid.machine", {**args, "force": True})["machines"][0]["changed"] is False
    grid.play("power", "-e", f"machines={guest.name}", "-e", "state=running").succeeded()
    guest.address = guest.facts()["addresses"][0]
    assert guest.says("cat /proc/sys/kernel/random/boot_id") != boot


@pytest.mark.parametrize("provider", PROVIDERS)
def test_tiny(provider: str, network: str) -> None:
    grid, deploy = _deployed("it-inside", provider, "root", memory="192 MiB", memory_max="448 MiB")
    try:
        deploy()
        guest = Guest(provider, grid.names(1)[0], "root")
        boot = guest.says("cat /proc/sys/kernel/random/boot_id")
        before = guest.memory()
        row = deploy(vcpus=2, memory="320 MiB", extra_networks=[network], disk="160 MiB", description="plugged")
        assert {step["when"] for step in row["changes"]} == {"live"} and not row["restart_required"], row
        until("two processors", lambda: guest.says("nproc") == "2", 20)
        assert guest.memory() - before == 128 * 1024
        until("an address on the new card", lambda: " 198.18.203." in guest.says("ip -4 addr show dev eth1"), 30)
        assert int(guest.says("cat /sys/class/block/vda/size")) * 512 == 160 * MIB
        assert "next boot" in row["ignored"]["grow_filesystem"]
        row = deploy(vcpus=2, memory="160 MiB", disk="160 MiB")
        assert {step["when"] for step in row["changes"]} == {"live"}, row
        assert "eth1" not in guest.says("ip link")
        assert before - guest.memory() == 32 * 1024
        assert guest.says("cat /proc/sys/kernel/random/boot_id") == boot
        assert deploy(vcpus=2, memory="160 MiB", disk="160 MiB")["changed"] is False
        row = deploy(memory="160 MiB", disk="160 MiB")
        assert row["pending"] == {"vcpus": [2, 1]} and row["restart_required"], row
        grid.play("power", "-e", f"machines={guest.name}", "-e", "state=restarted").succeeded()
        guest.address = guest.facts()["addresses"][0]
        _deaf(grid, guest)
        assert guest.says("nproc") == "1" and int(guest.says("df -k / | tail -n 1").split()[1]) > 100 * 1024, (
            "the file system grows at the next boot"
        )
    finally:
        grid.clean()


@pytest.mark.parametrize("provider", PROVIDERS)
def test_debian_with_its_agent(provider: str, network: str) -> None:
    grid, deploy = _deployed(
        "it-inside-d", provider, "alice", image="debian-12", memory="512 MiB", memory_max="768 MiB"
    )
    try:
        deploy()
        guest = Guest(provider, grid.names(1)[0], "alice")
        until(
            "the guest's agent",
            lambda: (
                "connected"
                in on_host(provider, f"virsh dumpxml {guest.name} | grep guest_agent | grep connected || true")
            ),
            120,
            2,
        )
        before, size = guest.memory(), int(guest.says("df -k --output=size / | tail -n 1"))
        row = deploy(vcpus=2, memory="640 MiB", extra_networks=[network], disk="4 GiB")
        assert {step["when"] for step in row["changes"]} == {"live"} and "grow filesystem" in row["actions"], row
        until("two processors", lambda: guest.says("nproc") == "2", 30)
        assert (
            guest.memory() - before == 128 * 1024
            and int(guest.says("df -k --output=size / | tail -n 1")) - size > 3 * 2**20 // 2
        )
        until("an address on the new card", lambda: " 198.18.203." in guest.says("ip -4 addr show dev eth1"), 60)
        row = deploy(vcpus=2, memory="448 MiB", disk="4 GiB")
        assert {step["when"] for step in row["changes"]} == {"live"}, row
        assert "eth1" not in guest.says("ip link") and before - guest.memory() == 64 * 1024

        # Its clock stood still while it slept, and it is told the time when it wakes.
        power = ("power", "-e", f"machines={guest.name}")
        grid.play(*power, "-e", "state=hibernated").succeeded()
        asleep = time.monotonic()
        until("a clock that is behind for more than a run takes", lambda: time.monotonic() - asleep > 20, 30)
        row = grid.play(*power, "-e", "state=running").succeeded().row(guest.name)
        behind = time.time() - int(guest.says("date +%s"))
        assert row["clock_set"] is True and abs(behind) < 8, behind

        taken = task(
            provider,
            "virtuoso.grid.machine_snapshot",
            {"path": DEPOT, "snapshot": "s", "machines": [{"name": guest.name}]},
        )
        assert taken["machines"][0]["consistent"] == "frozen", taken
        guest.says("echo two > /tmp/two; sync")
        grid.play("snapshot", "-e", f"machines={guest.name}", "-e", "snapshot=s", "-e", "state=reverted").succeeded()
        guest.address = guest.facts(wait_for_address=200)["addresses"][0]
        assert guest.says("test -e /tmp/two || echo gone") == "gone"
    finally:
        grid.clean()
