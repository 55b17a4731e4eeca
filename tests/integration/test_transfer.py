# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images on their way between hosts: whole, as deltas, killed and resumed, two at once, relayed, and what can go
wrong."""

from __future__ import annotations

import concurrent.futures
import contextlib
import time
import typing as t

import pytest
from conftest import PROVIDERS, Row, task
from walking import on_host, until

SERVER, PROVIDER = "home1", PROVIDERS[0]
ADDRESSES = {"home1": "198.18.0.11", "provider1": "198.18.0.21", "provider2": "198.18.0.22"}
STORE = "/var/lib/virtuoso"
MIB = 2**20
SIZE = 32
"""MiB of noise in an image."""

# Version 2 has 4 MiB of its own, and all of version 1 at other places.
DISKS = f"""
    set -e
    head -c {SIZE}M /dev/urandom > /var/lib/it-1.raw && truncate -s 96M /var/lib/it-1.raw
    truncate -s 96M /var/lib/it-2.raw
    dd if=/var/lib/it-1.raw of=/var/lib/it-2.raw bs=1M count={SIZE} seek=50 conv=notrunc status=none
    head -c 4M /dev/urandom | dd of=/var/lib/it-2.raw bs=1M seek=10 conv=notrunc iflag=fullblock status=none
"""


@pytest.fixture(scope="module", name="images")
def _images() -> t.Iterator[dict[str, Row]]:
    """Two versions of an image on the image server."""
    on_host(SERVER, DISKS)
    entries = [
        {
            "name": "it-transfer",
            "version": version,
            "source": {"type": "file", "path": f"/var/lib/it-{version}.raw", "format": "raw"},
        }
        for version in ("1", "2")
    ]
    made = task(SERVER, "virtuoso.grid.image", {"images": entries})
    assert not made.get("failed"), made
    yield {image["version"]: {**image, "name": image["reference"]} for image in made["images"]}
    task(SERVER, "virtuoso.grid.image", {"images": [{"name": "it-transfer"}], "state": "absent"})
    on_host(SERVER, "rm -f /var/lib/it-?.raw")


class Target:
    """A store of its own on a provider."""

    def __init__(self, host: str, path: str) -> None:
        self.host = host
        self.path = path

    def get(self, *images: Row, source: str = SERVER, **options: t.Any) -> Row:
        where = {"name": source, "host": ADDRESSES[source]}
        return task(
            self.host,
            "virtuoso.grid.image_transfer",
            {"path": self.path, "source": where, "images": list(images), **options},
        )

    def one(self, image: Row, **options: t.Any) -> Row:
        return self.get(image, **options)["images"][0]

    def same(self, image: Row) -> None:
        """The layer here is whole, equal to the source's byte for byte, and sound in qemu-img's eyes."""
        file = f"images/layers/{image['digest'].replace(':', '-')}.qcow2"
        sums = {on_host(host, f"sha256sum < {path}/{file}") for host, path in ((self.host, self.path), (SERVER, STORE))}
        assert len(sums) == 1
        on_host(self.host, f"qemu-img check -q -f qcow2 {self.path}/{file}")
        version = image["name"].partition("@")[2]
        on_host(SERVER, f"qemu-img compare -q -f qcow2 -F raw {STORE}/{file} /var/lib/it-{version}.raw")

    def nothing(self) -> None:
        """No layer and no manifest has its name."""
        assert (
            on_host(
                self.host,
                f"ls {self.path}/images/layers {self.path}/images/manifests 2>/dev/null | grep -c sha256- || true",
            ).strip()
            == "0"
        )

    def came(self) -> int:
        """Bytes of layers that are on their way in."""
        text = on_host(self.host, f"du -k {self.path}/images/.staging 2>/dev/null | tail -n 1")
        return int((text.split() or ["0"])[0]) * 1024


@pytest.fixture(name="target")
def _target() -> t.Iterator[Target]:
    target = Target(PROVIDER, "/var/lib/virtuoso-test-transfer")
    on_host(target.host, f"rm -rf {target.path}; mkdir -p -m 0711 {target.path}")
    yield target
    on_host(target.host, f"rm -rf {target.path}")


def code(result: Row) -> str:
    return t.cast(str, result["images"][0]["failure"]["code"])


def test_whole_then_delta_then_nothing(target, images):
    whole = target.one(images["1"])
    assert (whole["method"], whole["content"], whole["route"]) == ("whole", SIZE * MIB, "direct")
    delta = target.one(images["2"])
    assert (delta["method"], delta["content"], delta["copied"]) == ("delta", 4 * MIB, SIZE * MIB)
    assert delta["transferred"] < 4.5 * MIB
    target.same(images["1"])
    target.same(images["2"])
    again = target.get(images["1"], images["2"])
    assert not again["changed"] and [image["transferred"] for image in again["images"]] == [0, 0]


def by_ssh_alone(target: Target, image: Row, **source: t.Any) -> Row:
    where = {"name": SERVER, "host": ADDRESSES[SERVER], "tls_port": 0, **source}
    return task(target.host, "virtuoso.grid.image_transfer", {"path": target.path, "source": where, "images": [image]})


def test_it_goes_by_tls_and_where_that_cannot_be_by_ssh(target, images):
    tls = target.one(images["1"])
    assert (tls["transport"], tls["content"], tls["compression"]) == ("tls", SIZE * MIB, "none")
    target.same(images["1"])
    on_host(SERVER, "systemctl stop virtuoso-images.socket")
    try:
        ssh = target.one(images["2"])
    finally:
        on_host(SERVER, "systemctl start virtuoso-images.socket")
    assert (ssh["transport"], ssh["method"]) == ("ssh", "delta")
    target.same(images["2"])


def test_who_gives_images_by_tls_is_nobody_in_particular(target, images):
    """The sender that a connection by TLS has is the account's: no root, no capability."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(target.one, images["1"], bandwidth="8 MiB")
        until("some of it", lambda: target.came() >= MIB or running.done(), 60, 0.1)
        who = on_host(
            SERVER,
            "for each in $(pgrep -f 'send.py --tls'); do grep -E '^(Uid|Gid|CapEff|NoNewPrivs)' "
            "/proc/$each/status; id -u virtuoso; done",
        )
        assert running.result()["transport"] == "tls"
    lines = who.split("\n")
    account = lines[4].strip()
    assert account != "0" and lines[0].split()[1:] == [account] * 4
    assert lines[2].split() == ["CapEff:", "0000000000000000"] and lines[3].split() == ["NoNewPrivs:", "1"]


def test_the_source_starts_no_service_manager_for_who_reads_images(target, images):
    came = by_ssh_alone(target, images["1"])
    assert came["images"][0]["transport"] == "ssh"
    unit = "user@$(id -u virtuoso).service"
    assert on_host(SERVER, f"systemctl show -P LoadState {unit}; systemctl is-active {unit} || true").split() == [
        "masked",
        "inactive",
    ]


# The module has no name of its own in the list of processes: it is who has the file open.
KILL_WRITER = """
    for process in /proc/[0-9]*; do
        readlink $process/fd/* 2>/dev/null | grep -q 'get-.*/layer[.]part' && kill -KILL ${process#/proc/}
    done
    true
"""


@pytest.mark.parametrize("part", [0.1, 0.5, 0.99])
def test_killed_midway_it_resumes_with_the_rest(target, images, part):
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(target.get, images["1"], bandwidth="8 MiB")
        until("enough of it", lambda: target.came() >= part * SIZE * MIB or running.done(), 120, 0.05)
        on_host(target.host, KILL_WRITER)
        result = running.result()
    if part < 0.9:
        assert result.get("failed")
        target.nothing()
    came = target.one(images["1"])
    if came["actions"]:
        assert came["resumed"] + came["content"] == SIZE * MIB
        assert came["resumed"] >= (part - 0.1) * SIZE * MIB
    target.same(images["1"])


def test_two_at_once_bring_a_layer_once(target, images):
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        results = [pool.submit(target.one, images["1"], bandwidth="16 MiB") for dummy in range(2)]
        came = [result.result() for result in results]
    assert sorted(result["content"] for result in came) == [0, SIZE * MIB]
    target.same(images["1"])


@contextlib.contextmanager
def refused(host: str, address: str) -> t.Iterator[None]:
    """The host can't reach an address: its own packets there are refused."""
    on_host(
        host,
        f"nft add table ip it_refused && nft add chain ip it_refused out '{{ type filter hook output priority 0; }}'"
        f" && nft add rule ip it_refused out ip daddr {address} meta l4proto tcp reject with tcp reset",
    )
    try:
        yield
    finally:
        on_host(host, "nft delete table ip it_refused")


def test_hosts_that_do_not_reach_each_other_are_joined_by_the_controller(target, images):
    with refused(target.host, ADDRESSES[SERVER]):
        direct = target.get(images["1"], route="direct")
        assert code(direct) == "source_unreachable" and SERVER in direct["msg"]
        target.nothing()
        came = target.one(images["1"])
    assert (came["route"], came["method"]) == ("relay", "whole")
    target.same(images["1"])
    assert (
        on_host(target.host, "ss -Htln 'src 127.0.0.1' | grep -vc -e ':22 ' -e ':53 ' -e ':5900 ' || true").strip()
        == "0"
    )


def test_many_who_connect_and_say_nothing_do_not_end_the_service(target, images):
    """systemd ends a socket unit for good that is triggered 200 times in two seconds, unless told otherwise."""
    knock = "import socket\nfor n in range(400): socket.create_connection(('home1', 10808), 5).close()"
    on_host(target.host, f'python3 -c "{knock}"')
    assert on_host(SERVER, "systemctl is-active virtuoso-images.socket").strip() == "active"
    came = target.one(images["1"])
    assert came["route"] == "direct"


def test_a_host_that_is_not_in_the_inventory_has_no_way_round(target, images):
    with refused(target.host, ADDRESSES[SERVER]):
        where = {"name": "nobody", "host": ADDRESSES[SERVER]}
        result = task(
            target.host, "virtuoso.grid.image_transfer", {"path": target.path, "source": where, "images": [images["1"]]}
        )
    assert code(result) == "source_unreachable" and "nobody is no host" in result["relay"]


def test_a_source_that_restarts_midway_is_told_and_gone_on_with(target, images):
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(target.get, images["1"], bandwidth="4 MiB", route="direct")
        until("some of it", lambda: target.came() >= SIZE * MIB // 4 or running.done(), 60, 0.1)
        on_host(SERVER, "pkill -KILL -u virtuoso")
        result = running.result()
    assert result.get("failed") and code(result) in ("source_unreachable", "transfer_failed")
    target.nothing()
    came = target.one(images["1"])
    assert came["resumed"] >= SIZE * MIB // 8
    target.same(images["1"])


@contextlib.contextmanager
def damaged(image: Row, script: str) -> t.Iterator[None]:
    """The layer on the image server, changed by a script that finds its path in $layer."""
    layer = f"{STORE}/images/layers/{image['digest'].replace(':', '-')}"
    on_host(SERVER, f"cp -p {layer}.qcow2 {layer}.keep && cp -p {layer}.index {layer}.kept && layer={layer}; {script}")
    try:
        yield
    finally:
        on_host(SERVER, f"mv {layer}.keep {layer}.qcow2 && mv {layer}.kept {layer}.index")


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("rm $layer.qcow2", "layer_missing"),
        ("rm $layer.index", "layer_missing"),
        ("printf x | dd of=$layer.qcow2 bs=1 seek=20000000 conv=notrunc status=none", "layer_corrupted"),
        ("truncate -s 5M $layer.qcow2", "layer_corrupted"),
        ("printf x | dd of=$layer.index bs=1 seek=5000 conv=notrunc status=none", "layer_corrupted"),
        # what the file says of itself is never asked: a disk of 16 EiB, a backing file
        (
            "printf '\\377\\377\\377\\377\\377\\377\\377\\377' | dd of=$layer.qcow2 bs=1 seek=24 conv=notrunc "
            "status=none",
            None,
        ),
        (
            "printf '\\0\\0\\0\\0\\0\\0\\0\\160\\0\\0\\0\\13/etc/passwd' | dd of=$layer.qcow2 bs=1 seek=8 "
            "conv=notrunc status=none",
            None,
        ),
    ],
    ids=["no-file", "no-index", "flipped", "cut", "index-flipped", "16-EiB", "backing-file"],
)
def test_a_layer_that_is_not_right_at_the_source(target, images, script, expected):
    with damaged(images["1"], script):
        result = target.get(images["1"])
    if expected is None:
        assert not result.get("failed"), result
    else:
        assert code(result) == expected and SERVER in result["msg"]
        target.nothing()
        assert not target.get(images["1"]).get("failed")
    target.same(images["1"])


def test_a_disk_that_is_full_keeps_no_part(target, images):
    mount = f"mount -t tmpfs -o size=20M,mode=0711 tmpfs {target.path}"
    on_host(target.host, mount)
    try:
        assert code(target.get(images["1"])) == "disk_full"
        target.nothing()
        assert target.came() < MIB
    finally:
        on_host(target.host, f"umount {target.path}")


def test_a_layer_that_is_being_sent_is_not_removed(target, images):
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        # So slow that it still comes when the removal has begun, on a busy machine too
        running = pool.submit(target.get, images["1"], bandwidth="3 MiB")
        until("some of it", lambda: target.came() >= MIB or running.done(), 60, 0.1)
        removed = task(
            SERVER, "virtuoso.grid.image", {"images": [{"name": "it-transfer", "version": "1"}], "state": "absent"}
        )
        result = running.result()
    assert removed["images"][0]["removed_layers"] == []
    # the manifest went, and the layer stayed as long as it was read
    assert code(result) == "manifest_missing"
    entry = {
        "name": "it-transfer",
        "version": "1",
        "source": {"type": "file", "path": "/var/lib/it-1.raw", "format": "raw"},
    }
    assert task(SERVER, "virtuoso.grid.image", {"images": [entry]})["images"][0]["digest"] == images["1"]["digest"]
    came = target.one(images["1"])
    assert came["content"] == 0 and came["actions"] == ["name"]
    target.same(images["1"])


def test_bandwidth_is_a_limit(target, images):
    begin = time.monotonic()
    target.one(images["1"], bandwidth="8 MiB")
    assert time.monotonic() - begin >= SIZE / 8 * 0.9


@pytest.mark.each
def test_more_than_may_at_a_time_wait_for_their_turn(images):
    """Five at once from a server that gives to four."""
    targets = [Target(host, f"/var/lib/virtuoso-test-transfer-{each}") for each, host in enumerate(PROVIDERS * 3)][:5]
    for target in targets:
        on_host(target.host, f"rm -rf {target.path}; mkdir -p -m 0711 {target.path}")
    try:
        with concurrent.futures.ThreadPoolExecutor(5) as pool:
            running = [pool.submit(target.one, images["1"], bandwidth="4 MiB") for target in targets]
            busy = until(
                "four senders at work",
                lambda: (
                    int(
                        on_host(
                            SERVER,
                            "grep -c virtuoso-transfer/.slot /proc/locks; lslocks -no PATH | grep -c '[.]slot-' "
                            "|| true",
                        ).split()[-1]
                    )
                    == 4
                ),
                60,
            )
            assert busy
            results = [each.result() for each in running]
        assert all(result.get("content") == SIZE * MIB for result in results), results
        for target in targets:
            target.same(images["1"])
    finally:
        for target in targets:
            on_host(target.host, f"rm -rf {target.path}")
