# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A bed for moving machines: two providers whose networks are one, a guest whose writes are acknowledged, and what can
be killed."""

from __future__ import annotations

import contextlib
import subprocess
import time
import typing as t

from walking import DEPOT, LAB, PROVIDERS, Grid, Run, on_host, until

ADDRESSES = {PROVIDERS[0]: "198.18.0.21", PROVIDERS[1]: "198.18.0.22"}
RANGES = {"198.18.101.": PROVIDERS[0], "198.18.102.": PROVIDERS[1], "198.18.77.": "home1"}
"""From which host the addresses of a network are reached."""
TUNNEL = "itmove"
CUT = "itcut"

MODES = ("live", "hibernated", "cold")
VICTIMS = ("controller", "source_libvirtd", "target_libvirtd", "ssh", "source_qemu", "target_qemu", "network")

PREPARE, SEND, RECEIVE, RELEASE = "prepare", "send", "receive", "settle"
POINTS: dict[str, tuple[tuple[str, float], ...]] = {
    "live": ((PREPARE, 0.0), (SEND, 0.0), (SEND, 0.4), (SEND, 1.0), (SEND, 1.8), (RECEIVE, 0.0)),
    "hibernated": ((PREPARE, 0.0), (SEND, 0.0), (SEND, 0.4), (RECEIVE, 0.0), (RECEIVE, 0.4), (RELEASE, 0.0)),
    "cold": ((PREPARE, 0.0), (SEND, 0.0), (RECEIVE, 0.0), (RECEIVE, 0.3), (RELEASE, 0.0)),
}
"""Where a move is hit: a step, and seconds after its begin."""

FLIGHT = {"virtuoso_migrate_bandwidth": "24 MiB", "virtuoso_migrate_stall_timeout": 5}
"""Slow enough to be hit in the middle."""


def gate(address: str) -> str:
    """The host from which a guest is reached. A provider's network has a range of its own, and the address comes from
    where the guest was started."""
    return next(host for start, host in RANGES.items() if address.startswith(start))


def other(provider: str) -> str:
    return PROVIDERS[1] if provider == PROVIDERS[0] else PROVIDERS[0]


@contextlib.contextmanager
def joined() -> t.Iterator[None]:
    """The providers' own networks are one: a plain VXLAN joins their bridges. Each has a DHCP server, which is to serve
    its own machines only."""
    drop = f"iifname {TUNNEL} udp dport 67-68 drop"
    rules = f"add table bridge {TUNNEL}; flush table bridge {TUNNEL}; " + "; ".join(
        f"add chain bridge {TUNNEL} {hook} {{ type filter hook {hook} priority 0; }};"
        f" add rule bridge {TUNNEL} {hook} {drop}"
        for hook in ("input", "forward")
    )
    try:
        for provider, address in ADDRESSES.items():
            remote = ADDRESSES[other(provider)]
            on_host(
                provider,
                f"ip link del {TUNNEL} 2>/dev/null; ip link add {TUNNEL} mtu 1450"
                f" type vxlan id 78 local {address} remote {remote} dstport 4790"
                f" && ip link set {TUNNEL} master virtuoso0 up && nft '{rules}'",
            )
        yield
    finally:
        for provider in PROVIDERS:
            on_host(
                provider,
                f"ip link del {TUNNEL}; nft delete table bridge {TUNNEL}; nft delete table inet {CUT}; true",
                check=False,
            )


class Writer:
    """A guest that writes numbers to its disk, and says each when it is there, over one TCP connection through the
    first provider."""

    USER = "root"

    def __init__(self, address: str, name: str) -> None:
        self.file = name if name.startswith("/") else f"/root/{name}"
        self.argv = self._argv(address)
        self.process = subprocess.Popen(  # pylint: disable=consider-using-with
            [*self.argv, self.script()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        first = t.cast(t.IO[str], self.process.stdout).readline()
        assert first, f"the guest can't be reached: {t.cast(t.IO[str], self.process.stderr).read()}"

    def script(self) -> str:
        """What writes."""
        return f"n=0; while :; do n=$((n+1)); echo $n >> {self.file}; sync; echo $n; usleep 50000; done"

    def reader(self) -> str:
        """What reads it all."""
        return f"cat {self.file}"

    @classmethod
    def _argv(cls, address: str) -> list[str]:
        ssh = [
            "ssh",
            "-F",
            "none",
            "-i",
            str(LAB / "id_ed25519"),
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
            "-o",
            "IdentitiesOnly=yes",
        ]
        patience = [
            "-o",
            "LogLevel=ERROR",
            "-o",
            "ServerAliveInterval=5",
            "-o",
            "ServerAliveCountMax=60",
            "-o",
            "ConnectTimeout=20",
        ]
        jump = " ".join(["ssh", "-F", str(LAB / "admin_ssh_config"), *patience, "-W", "%h:%p", gate(address)])
        return [*ssh, *patience, "-o", f"ProxyCommand={jump}", f"{cls.USER}@{address}"]

    def move_to(self, address: str) -> None:
        """The guest was started anew, and has another address."""
        self.argv = self._argv(address)

    @property
    def alive(self) -> bool:
        """Whether the connection still stands."""
        return self.process.poll() is None

    def stop(self) -> int:
        """End it; the last number that was acknowledged."""
        self.process.terminate()
        said = t.cast(t.IO[str], self.process.stdout).read().split()
        self.process.wait(10)
        return int(said[-1]) if said else 1

    def written(self) -> list[int]:
        """What the guest has on its disk."""

        def probe() -> str | None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                done = subprocess.run(
                    [*self.argv, self.reader()],
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    timeout=60,
                    check=False,
                )
                return done.stdout if done.returncode == 0 else None
            return None

        return [int(line) for line in until("the guest's SSH server", probe, 120, 1).split()]


class Bed:
    """A machine on the two providers."""

    def __init__(self, grid: Grid, name: str) -> None:
        self.grid = grid
        self.name = name
        self.uuid = grid.uuids()[name]
        self.address = ""
        self.learn_address()

    def learn_address(self) -> None:
        """The address as the store has it."""
        self.address = str(self.grid.rows("SELECT address FROM host WHERE name = ?", self.name)[0]["address"])

    @property
    def place(self) -> tuple[str, str]:
        """The one place where the machine is, and its state."""
        places = self.grid.domains().get(self.name, [])
        assert len(places) == 1, f"{self.name} is in {len(places)} places: {places}"
        return places[0]

    def start(self, target: str, mode: str, **variables: t.Any) -> Run:
        """Begin a move."""
        # With -v it tells each step.
        return self.grid.start(
            "migrate",
            "-v",
            "-e",
            f"machines={self.name}",
            "-e",
            f"to={target}",
            "-e",
            f"mode={mode}",
            **{**FLIGHT, **variables},
        )

    def finish(self, target: str) -> Run:
        """The same again, until it succeeds: a run that was left alone may still be at work."""
        end = time.monotonic() + 90
        while True:
            run = self.grid.play("migrate", "-e", f"machines={self.name}", "-e", f"to={target}")
            if (
                run.returncode == 0
                or time.monotonic() > end
                or self.grid_code(run) not in ("machine_busy", "host_unreachable", "libvirt_unreachable")
            ):
                return run

    def grid_code(self, run: Run) -> str | None:
        failure = run.failures().get(self.name)
        return str(failure["code"]) if failure else None

    def whole(self, target: str) -> str:
        """Assert that there is one copy, at the target, and nothing else of it anywhere; its state."""
        provider, state = self.place
        assert provider == target, f"{self.name} is on {provider}"
        for each in PROVIDERS:
            there = on_host(
                each,
                f"ls -A {DEPOT}/machines/{self.uuid} 2>/dev/null;"
                f" ls -d {DEPOT}/machines/.staging/{self.uuid} 2>/dev/null; true",
            ).split()
            if each == target:
                assert {"disk.qcow2", "seed.iso"} <= set(there) and not {"incoming.json", "move.xml"} & set(there), (
                    there
                )
            else:
                assert there == [], f"{each} still has {there}"
            assert "loaded" not in on_host(
                each, f"systemctl show -p LoadState virtuoso-offer-{self.uuid} | grep =loaded || true"
            )
        xml = on_host(target, f"virsh dumpxml --inactive {self.name}")
        assert "<virtuoso:moving" not in xml and ".moving" not in xml
        row = self.grid.rows("SELECT host.generation FROM host WHERE name = ?", self.name)[0]
        assert f'generation="{row["generation"]}"' in xml, "the store knows another generation"
        return state

    def power(self, state: str) -> None:
        run = self.grid.play(
            "power",
            "-e",
            f"machines={self.name}",
            "-e",
            f"state={state}",
            virtuoso_address_timeout=30,
            virtuoso_shutdown_timeout=20,
        )
        assert run.returncode == 0, run.story()
        self.learn_address()


def kill(bed: Bed, victim: str, source: str, run: Run) -> None:
    """Hit the victim, as far as there is one at the moment."""
    target = other(source)
    if victim == "controller":
        run.signal(9)
    elif victim in ("source_libvirtd", "target_libvirtd"):
        on_host(source if victim.startswith("source") else target, "systemctl kill --signal KILL libvirtd", check=False)
    elif victim in ("source_qemu", "target_qemu"):
        on_host(
            source if victim.startswith("source") else target,
            f"kill -9 $(cat /run/libvirt/qemu/{bed.name}.pid)",
            check=False,
        )
    elif victim == "ssh":
        # All sessions of the source, this one too
        on_host(source, "pkill -KILL -f 'sshd(-session)?: root'", check=False)
    elif victim == "network":
        chain = f"add table inet {CUT}; add chain inet {CUT} c {{ type filter hook input priority -100; }}"
        rules = f"{chain}; add rule inet {CUT} c ip saddr {ADDRESSES[target]} drop"
        on_host(source, f"nft '{rules}'")


def heal(source: str) -> None:
    """What was hit works again."""
    on_host(source, f"nft delete table inet {CUT} 2>/dev/null; true", check=False)
    for provider in PROVIDERS:
        until(
            "libvirtd",
            lambda provider=provider: on_host(
                provider, "systemctl start libvirtd; virsh list >/dev/null && echo yes", check=False
            ),
            30,
        )


def hit(bed: Bed, mode: str, victim: str, point: tuple[str, float], number: int) -> str:
    """One case: the move is hit, and the same command brings the machine to its target, with all that it had
    acknowledged. What happened, in words."""
    source, target = bed.place[0], other(bed.place[0])
    pattern, writer = number % 250 + 1, _writing(bed, mode, number)
    begin = time.monotonic()
    run = bed.start(target, mode)
    step, delay = point
    try:
        began = run.wait_for_text(f": {step}: {bed.name}", 60)
        with contextlib.suppress(subprocess.TimeoutExpired):
            run.process.wait(delay)
        late = run.process.poll() is not None
        kill(bed, victim, source, run)
        # libvirt itself waits two minutes for a connection that nobody refuses.
        run.wait(200)
    finally:
        heal(source)
    times = [time.monotonic()]
    first = "succeeded" if run.returncode == 0 else bed.grid_code(run) or f"ended with {run.returncode}"
    print(f"first run: {run.story()}")
    after = bed.finish(target)
    times.append(time.monotonic())
    assert after.returncode == 0, f"{mode}, {victim} at {point}, first run {first}: {after.story()}"
    state = bed.whole(target)
    if not victim.endswith("qemu"):
        assert state == ("shut off" if mode == "cold" else "running"), f"{mode}, {victim} at {point}: it is {state}"
    broken = _all_written(bed, target, state, writer, pattern)
    if times[1] - times[0] > 20:
        broken += f", the second run took {times[1] - times[0]:.0f} s"
    seconds = times[0] - begin
    if seconds > 60:
        broken += f", the first run took {seconds:.0f} s"
    reached = f"{'' if began else 'not reached, '}{'after its end, ' if late else ''}"
    return f"{reached}{first}; then {after.row(bed.name)['state']}{broken}"


def _writing(bed: Bed, mode: str, number: int) -> Writer | None:
    """Have the machine write: its running guest, or into its disk where it is shut down."""
    source, state = bed.place
    if mode == "cold":
        if state == "running":
            bed.power("stopped")
        pattern = number % 250 + 1
        on_host(source, f"qemu-io -f qcow2 -c 'write -P {pattern} 70M 256k' {DEPOT}/machines/{bed.uuid}/disk.qcow2")
        return None
    if state != "running":
        bed.power("running")
    return t.cast("Writer | None", until("the guest", lambda: _writer(bed, number), 60, 1))


def _all_written(bed: Bed, target: str, state: str, writer: Writer | None, pattern: int) -> str:
    """Assert that all that was acknowledged is there; in words, whether the guest's connection was lost."""
    if writer is None:
        said = on_host(
            target, f"qemu-io -f qcow2 -c 'read -P {pattern} 70M 256k' {DEPOT}/machines/{bed.uuid}/disk.qcow2"
        )
        assert "Pattern verification failed" not in said, said
        return ""
    broken = "" if writer.alive else ", connection lost"
    last = writer.stop()
    if state != "running":
        bed.power("running")
        writer.move_to(bed.address)
    written = writer.written()
    assert written[:last] == list(range(1, last + 1)), (
        f"{last} writes were acknowledged, the guest has {written[-3:]} of them"
    )
    return broken


def _writer(bed: Bed, number: int) -> Writer | None:
    try:
        return Writer(bed.address, f"log{number}")
    except AssertionError:
        return None
