# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Moves where the straight way is none: a guest that doesn't converge, two hosts that don't reach each other, a source
that has died."""

from __future__ import annotations

import contextlib
import subprocess
import typing as t

import pytest
from moving import ADDRESSES, CUT, LAB, RECEIVE, Bed, Writer, joined, other
from walking import DEPOT, PROVIDERS, Grid, on_host, until

USERFAULT = "/proc/sys/vm/unprivileged_userfaultfd"


@pytest.fixture(scope="module", name="bed")
def _bed() -> t.Iterator[Bed]:
    grid = Grid("it-ways", machine={"memory": "96 MiB", "display": "none"})
    key = (LAB / "id_ed25519.pub").read_text(encoding="ascii").strip()
    try:
        with joined():
            users = [{"name": "alice", "ssh_authorized_keys": [key]}]
            grid.play(
                "deploy", "--limit", PROVIDERS[0], machines=grid.machines(1, users=users), virtuoso_screenshots=False
            ).succeeded()
            yield Bed(grid, grid.names(1)[0])
    finally:
        grid.clean()


@contextlib.contextmanager
def cut() -> t.Iterator[None]:
    """The two providers don't reach each other; the controller reaches both."""
    try:
        for provider in PROVIDERS:
            rule = f"add table inet {CUT}; add chain inet {CUT} c {{ type filter hook input priority -100; }}"
            on_host(provider, f"nft '{rule}; add rule inet {CUT} c ip saddr {ADDRESSES[other(provider)]} drop'")
        yield
    finally:
        for provider in PROVIDERS:
            on_host(provider, f"nft delete table inet {CUT}")


class Busy(Writer):
    """The guest also changes more of its memory in a second than the link carries."""

    def script(self) -> str:
        turn = "tr '\\\\000-\\\\377' '\\\\001-\\\\377\\\\000' </tmp/big >/tmp/big2; mv /tmp/big2 /tmp/big"
        dirty = f"dd if=/dev/zero of=/tmp/big bs=1M count=10 2>/dev/null; while :; do {turn}; done"
        return f"mount -t tmpfs none /tmp; ({dirty}) </dev/null >/dev/null 2>&1 & {super().script()}"


def test_a_guest_that_does_not_converge_goes_by_post_copy(bed: Bed):
    before = {provider: on_host(provider, f"cat {USERFAULT}").strip() for provider in PROVIDERS}
    source = bed.place[0]
    target = other(source)
    writer = Busy(bed.address, "busy")
    try:
        for provider in PROVIDERS:
            on_host(provider, f"echo 1 > {USERFAULT}")
        options = {
            "virtuoso_migrate_postcopy": True,
            "virtuoso_migrate_postcopy_after": 4,
            "virtuoso_migrate_bandwidth": "8 MiB",
        }
        run = bed.grid.play("migrate", "-e", f"machines={bed.name}", "-e", f"to={target}", **options).succeeded()
        stats = run.row(bed.name)["stats"]
        print(stats)
        assert stats["postcopy"] is True and stats["passes"] >= 4
        assert bed.whole(target) == "running" and writer.alive
        written = len(writer.written())
        until("more writes at the target", lambda: len(writer.written()) > written, 40)
    finally:
        for provider, value in before.items():
            on_host(provider, f"echo {value} > {USERFAULT}")
    last = writer.stop()
    assert writer.written()[:last] == list(range(1, last + 1))
    # What keeps it busy ends.
    bed.power("restarted")


def test_hosts_that_do_not_reach_each_other_give_files_through_the_controller(bed: Bed):
    source = bed.place[0]
    target = other(source)
    writer = Writer(bed.address, "relayed")
    with cut():
        live = bed.grid.play("migrate", "-e", f"machines={bed.name}", "-e", f"to={target}")
        assert live.code(bed.name) == "target_unreachable" and "hibernated" in live.report["msg"]
        assert bed.whole(source) == "running"
        bed.grid.play(
            "migrate", "-e", f"machines={bed.name}", "-e", f"to={target}", "-e", "mode=hibernated"
        ).succeeded()
    assert bed.whole(target) == "running"
    last = writer.stop()
    assert writer.written()[:last] == list(range(1, last + 1))
    for provider in PROVIDERS:
        assert "" == on_host(provider, "ls /tmp/virtuoso-*.sock 2>/dev/null || true")


def podman(*words: str) -> None:
    subprocess.run(["podman", *words], stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=True)


def revive(host: str) -> None:
    """Power the host on again."""
    podman("start", f"virtuoso-lab-{host}")
    until("the host", lambda: on_host(host, "virsh list >/dev/null && echo yes", check=False), 60, 1)


def test_a_dead_source_s_machine_goes_on_elsewhere_only_on_somebody_s_word(bed: Bed):
    """The source dies when all files have come and the target hasn't made the machine of them yet."""
    source = bed.place[0]
    target = other(source)
    writer = Writer(bed.address, "dead")
    run = bed.start(target, "hibernated")
    assert run.wait_for_text(f": {RECEIVE}: {bed.name}", 60), run.story()
    staging, note = f"{DEPOT}/machines/.staging/{bed.uuid}", f"{DEPOT}/machines/{bed.uuid}/incoming.json"
    until("the files on their way", lambda: "yes" in on_host(target, f"test -d {staging} && echo yes || true"), 30, 0.1)
    on_host(target, "kill -STOP $(pidof libvirtd)")
    try:
        until(
            "all files",
            lambda: "true" in on_host(target, f"grep -o 'complete.: true' {note} 2>/dev/null || true"),
            60,
            0.2,
        )
        run.signal(9)
        run.wait(20)
    finally:
        # What it was asked is not to be done when it goes on.
        on_host(target, "systemctl kill --kill-whom=main --signal KILL libvirtd")
        until(
            "libvirtd",
            lambda: on_host(target, "systemctl start libvirtd; virsh list >/dev/null && echo yes", check=False),
            30,
        )
    last = writer.stop()
    podman("kill", f"virtuoso-lab-{source}")
    try:
        words = ("-e", f"machines={bed.name}", "-e", f"to={target}")
        unsaid = bed.grid.play("migrate", *words)
        assert unsaid.code(bed.name) == "host_unreachable" and "source_is_dead" in unsaid.report["msg"], unsaid.story()
        assert bed.name not in on_host(target, "virsh list --all --name").split()
        said = bed.grid.play("migrate", *words, "-e", f"source_is_dead={source}").succeeded()
        assert said.row(bed.name)["provider"] == target
        assert bed.name in on_host(target, "virsh list --name").split()
    finally:
        revive(source)
    with joined():
        # The stale copy stays off, can't be started, and is found and released.
        assert on_host(source, f"virsh domstate {bed.name}").strip() == "shut off"
        assert "rror" in on_host(source, f"virsh start {bed.name} 2>&1", check=False)
        refreshed = bed.grid.play("refresh", virtuoso_refresh_latency=False).succeeded()
        assert bed.name in [row["name"] for row in refreshed.report["machines"]]
        assert bed.whole(target) == "running"
        assert writer.written()[:last] == list(range(1, last + 1))


def test_of_a_dead_host_without_a_copy_elsewhere_nothing_is_started(bed: Bed):
    source = bed.place[0]
    podman("kill", f"virtuoso-lab-{source}")
    try:
        run = bed.grid.play(
            "migrate", "-e", f"machines={bed.name}", "-e", f"to={other(source)}", "-e", f"source_is_dead={source}"
        )
        assert run.code(bed.name) == "no_copy"
        assert bed.name not in on_host(other(source), "virsh list --all --name").split()
    finally:
        revive(source)
    # It comes back with its machine shut off, as after any loss of power.
    assert bed.place[0] == source
