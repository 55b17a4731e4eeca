# SPDX-License-Identifier: GPL-3.0-or-later
"""Move one and ten running machines from one provider to the other, beside ``virsh migrate`` with whole and with
incremental storage, and encrypted.

Ours is the playbook, as a user runs it; the peers are the bare commands on the source, with the target's files made
ready before the clock starts. Bytes are those that passed the source's interface, both ways. Between two measurements
the machines go back by our playbook, unmeasured. The whole takes about ten minutes; CASE=one, CASE=ten and
CASE=hibernated take a part each, ROUNDS=1 is enough to see where it stands.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import typing as t

import choice
from measure import CHECKOUT, INVENTORY, Row, on, timed

SOURCE, TARGET = "provider1", "provider2"
ADDRESSES = {SOURCE: "198.18.0.21", TARGET: "198.18.0.22"}
CASES = ("one live", "ten live", "hibernated")
DEPOT = "/var/lib/virtuoso/machines"
DIR = CHECKOUT / "build" / "bench-migration"
KEY = "/root/bench-migration"
PORT = 2222
SSH = f"ssh -i {KEY} -o Port={PORT} -o BatchMode=yes -o StrictHostKeyChecking=no -o LogLevel=ERROR"
URI = f"qemu+ssh://root@{ADDRESSES[TARGET]}:{PORT}/system?keyfile={KEY}&no_verify=1"
COUNT = 10
ROUNDS = int(os.environ.get("ROUNDS", "3"))

NAMES = [f"bench-mig-{number}" for number in range(1, COUNT + 1)]


def grid(playbook: str, *words: str, **variables: t.Any) -> None:
    """One of the collection's playbooks, with a store of the benchmark's own. One that fails ends the benchmark."""
    DIR.mkdir(parents=True, exist_ok=True)
    values = {
        "virtuoso_store": str(DIR / "grid.db"),
        "virtuoso_owner": "bench",
        "virtuoso_screenshots": False,
        "virtuoso_machines": [],
        **variables,
    }
    (DIR / "variables.json").write_text(json.dumps(values), encoding="utf-8")
    argv = [
        "ansible-playbook",
        "-i",
        str(INVENTORY),
        f"virtuoso.grid.{playbook}",
        "-e",
        f"@{DIR / 'variables.json'}",
        *words,
    ]
    done = subprocess.run(
        argv,
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=1200,
        check=False,
        env=os.environ,
    )
    if done.returncode:
        raise SystemExit(f"bench: {playbook} failed\n{done.stdout[-4000:]}\n{done.stderr[-2000:]}")


def move(names: t.Sequence[str], to: str, mode: str = "auto") -> None:
    grid("migrate", "-e", f"machines={','.join(names)}", "-e", f"to={to}", "-e", f"mode={mode}")


def prepare(names: t.Sequence[str]) -> None:
    """A key by which the source's root reaches the target's, for the peers; and the machines."""
    on(SOURCE, f"rm -f {KEY} {KEY}.pub; ssh-keygen -q -t ed25519 -N '' -f {KEY}")
    public = on(SOURCE, f"cat {KEY}.pub").strip()
    on(TARGET, f"grep -q '{public}' /root/.ssh/authorized_keys || echo '{public}' >> /root/.ssh/authorized_keys")
    machines = [{"name": name, "image": "tiny", "memory": "96 MiB", "display": "none"} for name in names]
    grid("deploy", "--limit", SOURCE, virtuoso_machines=machines)
    # So that the target has the image; and guests that have just booted change their memory more than later.
    move(names, TARGET)
    move(names, SOURCE)


def uuid(name: str) -> str:
    return on(SOURCE, f"virsh domuuid {name}").strip()


def ready(names: t.Sequence[str]) -> None:
    """What the peers need at the target: an overlay on the image, and the seed."""
    on(
        SOURCE,
        f"""set -e; for name in {" ".join(names)}; do
        cd {DEPOT}/$(virsh domuuid $name)
        told=$(qemu-img info -U disk.qcow2)
        backing=$(echo "$told" | sed -n 's/^backing file: \\([^ ]*\\).*/\\1/p')
        size=$(echo "$told" | sed -n 's/^virtual size:.*(\\([0-9]*\\) bytes.*/\\1/p')
        {SSH} root@{ADDRESSES[TARGET]} "mkdir -p $PWD &&
            qemu-img create -q -f qcow2 -F qcow2 -b $backing $PWD/disk.qcow2 $size"
        scp -q {SSH.removeprefix("ssh")} seed.iso root@{ADDRESSES[TARGET]}:$PWD/seed.iso
        done""",
    )


def virsh(names: t.Sequence[str], storage: str) -> None:
    command = f"virsh migrate --live --persistent --undefinesource --unsafe {storage} --migrate-disks vda"
    command += f" NAME '{URI}' --migrateuri tcp://{ADDRESSES[TARGET]}"
    on(SOURCE, f"set -e; for name in {' '.join(names)}; do {command.replace('NAME', '$name')}; done")


def tidy(names: t.Sequence[str]) -> None:
    """The peers leave the source's files behind, which would be in our way back."""
    identities = on(TARGET, f"for name in {' '.join(names)}; do virsh domuuid $name; done").split()
    on(SOURCE, f"cd {DEPOT} && rm -rf {' '.join(identities)}")


def by_hand(name: str) -> None:
    """Save, compress, copy, define, restore: what an administrator would do."""
    directory = f"{DEPOT}/{uuid(name)}"
    there = f"root@{ADDRESSES[TARGET]}"
    on(
        SOURCE,
        f"""set -e; cd {directory}
        virsh -q dumpxml --inactive --security-info {name} > bench.xml
        virsh -q save {name} bench.save; zstd -q -3 -T0 --rm bench.save
        {SSH} {there} mkdir -p {directory}
        scp -q {SSH.removeprefix("ssh")} bench.xml bench.save.zst disk.qcow2 seed.iso {there}:{directory}/
        {SSH} {there} 'cd {directory} && zstd -q -d --rm bench.save.zst && virsh -q define bench.xml &&
            virsh -q restore bench.save && rm bench.save bench.xml'
        virsh -q undefine {name}""",
    )


def passed() -> int:
    return sum(map(int, on(SOURCE, "cat /sys/class/net/eth0/statistics/[rt]x_bytes").split()))


class Meter:
    """Measures moves to the target."""

    def __init__(self, case: str, names: t.Sequence[str], rounds: int) -> None:
        self.case, self.names, self.rounds = case, names, rounds
        self.rows: list[Row] = []

    def run(self, who: str, work: t.Callable[[], None], peer: bool, files: bool = True) -> None:
        seconds, sent = [], []
        for dummy in range(self.rounds):
            if peer and files:
                ready(self.names)
            begin = passed()
            seconds.append(timed(work))
            sent.append(passed() - begin)
            if peer:
                tidy(self.names)
                # The store learns where virsh has put them.
                grid("refresh", virtuoso_refresh_latency=False)
            move(self.names, SOURCE)
        for metric, value, unit in (
            ("time", statistics.median(seconds), "s"),
            ("sent", statistics.median(sent) / 2**20, "MiB"),
        ):
            print(f"bench: {self.case}: {who}: {metric} {value:.2f} {unit}", flush=True)
            self.rows.append(
                {"area": "migration", "case": self.case, "who": who, "metric": metric, "value": value, "unit": unit}
            )


def measure() -> list[Row]:
    """The chosen cases."""
    wanted = choice.chosen(CASES)
    meters = [
        meter for meter in (Meter("one live", NAMES[:1], ROUNDS), Meter("ten live", NAMES, 1)) if meter.case in wanted
    ]
    asleep = Meter("hibernated", NAMES[:1], 1)
    rows: list[Row] = []
    names = NAMES if any(meter.names == NAMES for meter in meters) else NAMES[:1]
    try:
        prepare(names)
        for meter in meters:
            some = meter.names
            meter.run("virtuoso", lambda some=some: move(some, TARGET), False)
            meter.run("virsh --copy-storage-inc", lambda some=some: virsh(some, "--copy-storage-inc"), True)
            # As ours does, between the hosts' own certificates.
            meter.run("virsh --copy-storage-inc --tls", lambda some=some: virsh(some, "--copy-storage-inc --tls"), True)
            meter.run("virsh --copy-storage-all", lambda some=some: virsh(some, "--copy-storage-all"), True)
            rows += meter.rows
        if asleep.case in wanted:
            asleep.run("virtuoso", lambda: move(NAMES[:1], TARGET, "hibernated"), False)
            asleep.run("by hand", lambda: by_hand(NAMES[0]), True, files=False)
            rows += asleep.rows
    finally:
        # Only these: the store has learned of all others on the two hosts meanwhile.
        grid("retire", "-e", f"machines={','.join(names)}")
        on(TARGET, "sed -i '/root@/{/bench/d}' /root/.ssh/authorized_keys; true")
    return rows


def measure_without_lab() -> list[Row]:
    """Nothing of this can be measured without hosts."""
    return []
