# SPDX-License-Identifier: GPL-3.0-or-later
"""Move a 2 GiB Debian disk and its next version from one provider to another, beside what one would use instead.

Every measurement is one task that Ansible runs on the destination, a peer's command as well as our module; ``floor`` is
a ping. Bytes are those that passed the source's interface, both ways. What our module made is compared with the source
and checked by qemu-img each time.
"""

from __future__ import annotations

import concurrent.futures
import json
import statistics
import typing as t
import uuid

import choice
import overlay_ways as ways
from measure import CHECKOUT, Row, on, play, task, timed

SOURCE, TARGET = "provider1", "provider2"
ADDRESS, TARGET_ADDRESS = "198.18.0.21", "198.18.0.22"
CASES = ("first", "new", "second", "ten", "slow-first", "slow-power-up", "slow-new")
DIR = "/var/lib/virtuoso-bench"
STORE = f"{DIR}/store"
RESULT = CHECKOUT / "build" / "bench-images.json"
SECONDS = CHECKOUT / "build" / "bench-seconds.json"
ROUNDS = 5
SLOW = 100e6 / 8
"""Bytes a second of the slow link."""

SSH = f"ssh -i {DIR}/key -o BatchMode=yes -o UserKnownHostsFile=/etc/virtuoso/known_hosts"
FROM = f"root@{ADDRESS}:{DIR}"
EXPORT = "systemd-run -q --unit=bench-export qemu-nbd -r -t -p 10811 -x disk -f qcow2 --cache=writeback"

Work = t.Callable[[], t.Any]

MACHINE = {
    "uuid": "b2a1d6a0-7a53-4d0b-9d6e-9f2f7c1d5e11",
    "name": "bench",
    "owner": "bench",
    "vcpus": 1,
    "memory": "512 MiB",
    "network": "virtuoso",
    "display": "none",
    "generation": 1,
    "site": "site-a",
}


def shell(command: str) -> Work:
    """A peer's command on the destination."""
    return lambda: task(TARGET, "ansible.builtin.shell", {"_raw_params": command})


def ours(*images: dict[str, t.Any], **options: t.Any) -> dict[str, t.Any]:
    """Our module on the destination."""
    entries = [{"name": image["reference"], "digest": image["digest"]} for image in images]
    return task(
        TARGET,
        "virtuoso.grid.image_transfer",
        {"path": STORE, "source": {"name": SOURCE, "host": ADDRESS}, "images": entries, **options},
    )


def via_controller() -> None:
    """ansible.builtin.copy knows no other way between two hosts than through the controller."""
    here = CHECKOUT / "build" / "bench-copy"
    task(SOURCE, "ansible.builtin.fetch", {"src": f"{DIR}/1.qcow2", "dest": str(here), "flat": True})
    task(TARGET, "ansible.builtin.copy", {"src": str(here), "dest": f"{DIR}/in/disk.qcow2", "mode": "0600"})
    here.unlink()


def synchronize() -> None:
    """ansible.posix.synchronize, delegated to the source, pushes."""
    play("images_synchronize", bench_source=SOURCE, bench_target=TARGET, bench_dir=DIR)


FIRST: dict[str, Work] = {
    "scp of qcow2": shell(f"scp -q {SSH.removeprefix('ssh')} {FROM}/1.qcow2 {DIR}/in/disk.qcow2"),
    "rsync of qcow2": shell(f"rsync -e '{SSH}' {FROM}/1.qcow2 {DIR}/in/disk.qcow2"),
    "rsync -z of raw": shell(f"rsync -z -S -e '{SSH}' {FROM}/1.raw {DIR}/in/disk.raw"),
    "qemu-img over NBD": shell(f"qemu-img convert -m 8 -W -O qcow2 nbd://{ADDRESS}:10811/disk {DIR}/in/disk.qcow2"),
    "ansible.builtin.copy": via_controller,
    "ansible.posix.synchronize": synchronize,
}
NEW: dict[str, Work] = {
    "rsync of qcow2": shell(f"rsync -e '{SSH}' {FROM}/2.qcow2 {DIR}/in/disk.qcow2"),
    "rsync -z of raw": shell(f"rsync -z -e '{SSH}' {FROM}/2.raw {DIR}/in/disk.raw"),
    "overlay through zstd": shell(
        f"{SSH} root@{ADDRESS} 'zstd -q -c -T0 {DIR}/overlay.qcow2' | zstd -q -d -c > {DIR}/in/overlay.qcow2"
    ),
}


def passed() -> int:
    """Bytes that have passed the source's interface."""
    return sum(map(int, on(SOURCE, "cat /sys/class/net/eth0/statistics/[rt]x_bytes").split()))


class Meter:
    """Measures one piece of work: seconds, and bytes that came."""

    def __init__(self, case: str) -> None:
        self.case = case
        self.rows: list[Row] = []

    def add(self, who: str, metric: str, value: float, unit: str) -> None:
        print(f"bench: {self.case}: {who}: {metric} {value:.2f} {unit}", flush=True)
        self.rows.append(
            {"area": "images", "case": self.case, "who": who, "metric": metric, "value": value, "unit": unit}
        )

    def run(self, who: str, work: Work, before: str, rounds: int = 1, check: Work | None = None) -> None:
        """Medians of some rounds. :param before: a script that makes the destination as it is to be before each."""
        self.turns({who: work}, before, rounds, {who: check} if check else {})

    def turns(self, works: t.Mapping[str, Work], before: str, rounds: int, checks: t.Mapping[str, Work]) -> None:
        """Medians of each in rounds of all, so that what else the machine does in these minutes meets every one of
        them."""
        seconds: dict[str, list[float]] = {who: [] for who in works}
        sent: dict[str, list[int]] = {who: [] for who in works}
        for dummy in range(rounds):
            for who, work in works.items():
                on(TARGET, before)
                begin = passed()
                seconds[who].append(timed(work))
                sent[who].append(passed() - begin)
                checks.get(who, lambda: None)()
        for who in works:
            self.add(who, "time", statistics.median(seconds[who]), "s")
            self.add(who, "sent", statistics.median(sent[who]) / 2**20, "MiB")


EMPTY = f"rm -rf {DIR}/in/* {STORE}; mkdir -p {STORE}; sync"


def verify(image: dict[str, t.Any], version: str) -> Work:
    """The layer is equal to the source's disk, and sound."""
    file = f"images/layers/{image['digest'].replace(':', '-')}.qcow2"

    def check() -> None:
        on(TARGET, f"qemu-img check -q -f qcow2 {STORE}/{file}")
        sums = [
            on(host, f"sha256sum < {path}/{file}") for host, path in ((TARGET, STORE), (SOURCE, "/var/lib/virtuoso"))
        ]
        on(SOURCE, f"qemu-img compare -q -f qcow2 -F raw /var/lib/virtuoso/{file} {DIR}/{version}.raw")
        assert sums[0] == sums[1], "the layer is not what it was at the source"

    return check


def first_copy(
    image: dict[str, t.Any], case: str, rounds: int, told: t.Callable[[dict[str, t.Any]], None] = lambda dummy: None
) -> list[Row]:
    """All ways to a host that has nothing. :param told: is given our module's result."""
    meter = Meter(case)
    on(SOURCE, f"systemctl stop bench-export 2>/dev/null; {EXPORT} {DIR}/1.qcow2")
    try:
        meter.turns({"virtuoso": lambda: told(ours(image)), **FIRST}, EMPTY, rounds, {"virtuoso": verify(image, "1")})
    finally:
        on(SOURCE, "systemctl stop bench-export")
    meter.add("floor", "time", timed(lambda: task(TARGET, "ansible.builtin.ping", {})), "s")
    return meter.rows


def keep_version_one(one: dict[str, t.Any]) -> None:
    """What a destination has that has version 1, ours and the peers', to begin from as often as needed."""
    on(TARGET, EMPTY)
    ours(one)
    on(TARGET, f"mv {STORE} {DIR}/first")
    for file in ("1.qcow2", "1.raw"):
        on(TARGET, f"rsync -S -e '{SSH}' {FROM}/{file} {DIR}/keep.{file}")


def new_version(two: dict[str, t.Any], case: str, rounds: int) -> list[Row]:
    """Version 2 to a host that has version 1."""
    meter = Meter(case)
    copies = "; ".join(f"cp --sparse=always {DIR}/keep.1.{kind} {DIR}/in/disk.{kind}" for kind in ("qcow2", "raw"))
    before = f"rm -rf {DIR}/in/* {STORE}; cp -a {DIR}/first {STORE}; {copies}; sync"
    meter.turns({"virtuoso": lambda: ours(two), **NEW}, before, rounds, {"virtuoso": verify(two, "2")})
    return meter.rows


def second_machine(image: dict[str, t.Any]) -> list[Row]:
    """The image once more to a host that has it."""
    meter = Meter("second machine of the same image")
    on(TARGET, EMPTY)
    ours(image)
    meter.run("virtuoso", lambda: ours(image), "true", ROUNDS)
    on(TARGET, f"rsync -e '{SSH}' {FROM}/1.qcow2 {DIR}/in/disk.qcow2")
    for who in ("scp of qcow2", "rsync of qcow2", "qemu-img over NBD"):
        if "NBD" in who:
            on(SOURCE, f"{EXPORT} {DIR}/1.qcow2")
        meter.run(who, FIRST[who], "true", 1)
    on(SOURCE, "systemctl stop bench-export")
    meter.add("floor", "time", timed(lambda: task(TARGET, "ansible.builtin.ping", {})), "s")
    return [*meter.rows, *second_machine_of_a_play(image)]


def second_machine_of_a_play(image: dict[str, t.Any]) -> list[Row]:
    """The same as one task of a play that has begun, without what starting Ansible and connecting take."""
    meter = Meter("second machine of the same image, the task alone")
    rsync = ["rsync", "-e", SSH, f"{FROM}/1.qcow2", f"{DIR}/in/disk.qcow2"]
    hosts = {"bench_target": TARGET, "bench_store": STORE, "bench_source": {"name": SOURCE, "host": ADDRESS}}
    entry = {"name": image["reference"], "digest": image["digest"]}
    seen = []
    for dummy in range(ROUNDS):
        play("images_second", **hosts, bench_image=entry, bench_rsync=rsync, bench_result=str(SECONDS))
        seen.append(json.loads(SECONDS.read_text(encoding="utf-8")))
    for who, seconds in zip(("virtuoso", "rsync of qcow2"), zip(*seen)):
        meter.add(who, "time", statistics.median(seconds), "s")
    return meter.rows


def ten_machines(image: dict[str, t.Any]) -> list[Row]:
    """Ten machines of one image on one provider."""
    meter = Meter("10 machines of one image to one provider")

    def bring_and_define() -> None:
        ours(image)
        entry = {**MACHINE, "image": {"name": image["reference"], "digest": image["digest"]}}
        machines = [{**entry, "uuid": str(uuid.uuid4()), "name": f"bench-{number}"} for number in range(10)]
        task(TARGET, "virtuoso.grid.machine", {"path": STORE, "state": "present", "machines": machines})

    meter.run("virtuoso", bring_and_define, EMPTY)
    on(TARGET, "for name in $(virsh list --all --name | grep '^bench-'); do virsh -q undefine $name; done")
    command = f"for each in 0 1 2 3 4 5 6 7 8 9; do rsync -e '{SSH}' {FROM}/1.qcow2 {DIR}/in/$each.qcow2; done"
    meter.run("a full copy for each (rsync)", shell(command), EMPTY)
    return meter.rows


# The prompt doesn't end its line, so nothing that reads lines sees it.
SEE_LOGIN = """
import os, select, sys, time
tty, seen, end = os.open(sys.argv[1], os.O_RDONLY | os.O_NOCTTY), b"", time.monotonic() + 300
while b"login: " not in seen:
    if not select.select([tty], [], [], max(0, end - time.monotonic()))[0]:
        sys.exit(f"no login prompt, but {seen[-300:]!r}")
    more = os.read(tty, 65536)
    if not more:
        sys.exit(f"the console has gone, after {seen[-300:]!r}")
    seen = seen[-2000:] + more
"""
LOGIN = f"python3 -c '{SEE_LOGIN}' $(virsh ttyconsole bench-boot)"


SHARE = "10 %"
"""The default of virtuoso_paging_bandwidth."""


def power_up(image: dict[str, t.Any], what: str) -> list[Row]:
    """From the wish for a machine to the login prompt on its serial console."""
    meter = Meter(f"power-up of {what} to login prompt, 100 Mbit/s")
    entry = {
        **MACHINE,
        "uuid": str(uuid.uuid4()),
        "name": "bench-boot",
        "image": {"name": image["reference"], "digest": image["digest"]},
    }
    exported = {"exports": [{"digest": image["digest"]}]}
    hosts = {
        "bench_source": SOURCE,
        "bench_target": TARGET,
        "bench_address": ADDRESS,
        "bench_target_address": TARGET_ADDRESS,
    }
    pool = concurrent.futures.ThreadPoolExecutor(1)
    coming: list[concurrent.futures.Future[dict[str, t.Any]]] = []

    def start(paged: bool) -> None:
        play("images_power_up", **hosts, bench_store=STORE, bench_machine=entry, bench_paged=paged)

    def boot() -> None:
        start(paged=False)
        on(TARGET, LOGIN)

    def bring_and_settle() -> dict[str, t.Any]:
        came = ours(image, bandwidth=SHARE)
        task(TARGET, "virtuoso.grid.machine", {"path": STORE, "state": "running", "machines": [entry]})
        return came

    def copy_then_boot() -> None:
        ours(image)
        boot()

    def on_demand() -> None:
        start(paged=True)
        # As deploy does: the image comes while the machine boots, and then the machine's disk moves to it.
        coming.append(pool.submit(bring_and_settle))
        on(TARGET, LOGIN)

    def away() -> None:
        while coming:
            came = coming.pop().result()["images"][0]
            meter.add("virtuoso", "the image, while it boots", came["seconds"], "s")
        task(TARGET, "virtuoso.grid.machine", {"path": STORE, "state": "absent", "machines": [{"uuid": entry["uuid"]}]})
        gone = {"state": "absent", "force": True, **exported}
        stopped = task(TARGET, "virtuoso.grid.image_export", {"path": STORE, **gone})["exports"]
        task(
            SOURCE,
            "virtuoso.grid.image_export",
            {**gone, "learn": [export for export in stopped if export.get("read")]},
        )

    try:
        on(SOURCE, "rm -f /var/lib/virtuoso/images/layers/*.boot")
        meter.run("virtuoso, the first that ever boots it", on_demand, EMPTY, check=away)
        meter.run("virtuoso", on_demand, EMPTY, check=away)
        meter.run("copy by our transfer, then boot", copy_then_boot, EMPTY, check=away)
        meter.run("image there", boot, "true", check=away)
    finally:
        away()
    return meter.rows


def slow_first_copy(one: dict[str, t.Any]) -> list[Row]:
    """At 100 Mbit/s, beside what the link takes for our bytes."""
    meter = Meter("first copy, 100 Mbit/s")
    alone: list[float] = []
    rows = first_copy(one, meter.case, 1, lambda result: alone.append(result["images"][0]["seconds"]))
    # The others take too long for that.
    for dummy in range(ROUNDS - 1):
        on(TARGET, EMPTY)
        alone.append(ours(one)["images"][0]["seconds"])
    ways.install()
    try:
        with ways.served([None]):
            carried = ways.speed(4.0, None).mbit
    finally:
        ways.uninstall()
    sent = next(row["value"] for row in rows if row["who"] == "virtuoso" and row["metric"] == "sent")
    meter.add("virtuoso, the transfer alone", "time", statistics.median(alone), "s")
    meter.add("our bytes / link rate", "time", sent * 2**20 / SLOW, "s")
    meter.add(
        f"our bytes / {carried:.1f} Mbit/s, what the link carries of TCP",
        "time",
        sent * 2**20 * 8 / (carried * 1e6),
        "s",
    )
    return [*rows, *meter.rows]


def measure() -> list[Row]:
    """The chosen cases; see the module's text."""
    shared = {
        "bench_source": SOURCE,
        "bench_target": TARGET,
        "bench_dir": DIR,
        "bench_result": str(RESULT),
        "bench_machine": MACHINE,
    }
    play("images_prepare", **shared)
    one, two, tiny = json.loads(RESULT.read_text(encoding="utf-8"))
    limit = "tc qdisc replace dev eth0 root tbf rate 100mbit burst 128k latency 50ms"
    unlimited: dict[str, Work] = {
        "first": lambda: first_copy(one, "first copy, unlimited link", ROUNDS),
        "new": lambda: new_version(two, "new version, 165 MiB changed, unlimited link", ROUNDS),
        "second": lambda: second_machine(one),
        "ten": lambda: ten_machines(one),
    }
    limited: dict[str, Work] = {
        "slow-first": lambda: slow_first_copy(one),
        "slow-power-up": lambda: power_up(one, "debian-12") + power_up(tiny, "tiny"),
        "slow-new": lambda: new_version(two, "new version, 165 MiB changed, 100 Mbit/s", 1),
    }
    wanted = choice.chosen(CASES)
    rows: list[Row] = []
    try:
        if {"new", "slow-new"} & set(wanted):
            keep_version_one(one)
        for name, case in (*unlimited.items(), *limited.items()):
            if name in limited:
                on(SOURCE, limit)
            if name in wanted:
                rows += case()
    finally:
        on(SOURCE, "tc qdisc del dev eth0 root 2>/dev/null; systemctl stop bench-export 2>/dev/null; true")
        for host in (SOURCE, TARGET):
            on(host, f"rm -rf {DIR}; sed -i /virtuoso-bench/d /root/.ssh/authorized_keys")
        task(SOURCE, "virtuoso.grid.machine", {"state": "absent", "machines": [{"uuid": MACHINE["uuid"]}]})
        task(SOURCE, "virtuoso.grid.image", {"images": [{"name": "bench"}], "state": "absent"})
    return rows
