# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A ``debian-12`` that was ordered with every field that its guest is told of, looked at from inside.

Its name and its user's are ones that YAML takes for something else where they aren't quoted.
"""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import subprocess
import sys
import typing as t
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from inside import INSIDE, MACHINE, USER
from walking import CHECKOUT, DEPOT, LAB, PROVIDERS, Grid, Row, on_host, until

EXTRA = "it-seed_San.2"
# Packages come from the network, through an emulated processor.
PATIENCE = 240


def remove_machine() -> None:
    """Remove what an earlier run, or this one, left: the name isn't one that the grid's own cleaning knows."""
    for provider in PROVIDERS:
        on_host(
            provider,
            f"uuid=$(virsh domuuid {MACHINE} 2>/dev/null) && virsh destroy {MACHINE}; "
            f'[ -z "$uuid" ] || {{ virsh undefine {MACHINE}; rm -rf {DEPOT}/machines/$uuid; }}; '
            f"virsh net-destroy {EXTRA}; virsh net-undefine {EXTRA}; true",
            check=False,
        )


@pytest.fixture(scope="module", name="grid")
def _grid(make_grid) -> t.Iterator[Grid]:
    remove_machine()
    network = f"<network><name>{EXTRA}</name><bridge name='virseed0'/></network>"
    for provider in PROVIDERS:
        on_host(
            provider,
            f"printf %s {shlex.quote(network)} >/run/seed.xml; virsh net-define /run/seed.xml; virsh net-start {EXTRA}",
        )
    yield make_grid("it-seed")
    remove_machine()


class Lan(t.NamedTuple):
    """The providers' own network: its gateway, and an address that its DHCP server has given to nobody."""

    gateway: str
    free: str


def lan() -> Lan:
    shown = ET.fromstring(on_host(PROVIDERS[0], "virsh net-dumpxml virtuoso"))
    gateway = str(t.cast(ET.Element, shown.find("ip")).get("address"))
    leases = "".join(on_host(provider, "virsh net-dhcp-leases virtuoso") for provider in PROVIDERS)
    addresses = [f"{gateway.rpartition('.')[0]}.{end}" for end in range(250, 200, -1)]
    return Lan(gateway, next(each for each in addresses if each != gateway and f"{each}/" not in leases))


def order(key: str, own: Lan) -> Row:
    return {
        "name": MACHINE,
        "image": "debian-12",
        "vcpus": 2,
        "memory": "640 MiB",
        "disk": "3 GiB",
        "packages": ["hello"],
        "users": [
            {"name": USER, "ssh_authorized_keys": f"# a file of keys\n{key}\n"},
            {"name": "bob", "sudo": False, "shell": "/bin/sh"},
        ],
        "extra_networks": [EXTRA],
        "address": {
            "method": "static",
            "ip": f"{own.free}/24",
            "gateway": own.gateway,
            "nameservers": [own.gateway, "192.0.2.53"],
            "search": ["example.org", "lab.example.org"],
        },
    }


def inside(grid: Grid, script: str) -> str:
    """What a shell script says in the guest, to which Ansible logs in as the inventory says."""
    argv = [
        str(Path(sys.executable).parent / "ansible"),
        "-i",
        str(grid.inventory),
        MACHINE,
        "-m",
        "ansible.builtin.raw",
    ]
    done = subprocess.run(
        [*argv, "-a", script, "-e", f"virtuoso_lab_dir={LAB}"],
        cwd=CHECKOUT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    head, dummy, said = done.stdout.partition(">>\n")
    if done.returncode or not dummy:
        raise AssertionError(f"{script}: {done.stdout}{done.stderr}")
    return said.replace("\r\n", "\n").strip()


def logged_in(grid: Grid) -> bool:
    with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
        return "done" in inside(grid, "cloud-init status")
    return False


@pytest.fixture(scope="module", name="guest")
def _guest(grid: Grid) -> tuple[Row, Lan, str]:
    """The report's row of the machine, its network, and its user's key."""
    key = (LAB / "id_ed25519.pub").read_text(encoding="utf-8").strip()
    own = lan()
    run = grid.play("deploy", machines=[order(key, own)], virtuoso_address_timeout=180).succeeded()
    return run.row(MACHINE), own, key


def test_the_ordered_address_was_seen(grid: Grid, guest):
    row, own, dummy = guest
    assert row["addresses"][0] == own.free
    (facts,) = grid.rows("SELECT address, facts FROM host WHERE name = ?", MACHINE)
    assert facts["address"] == own.free and json.loads(facts["facts"])["address_source"] in ("agent", "neighbour")


def test_every_field_is_to_be_seen_inside(grid: Grid, guest):
    row, own, key = guest
    until("cloud-init is done, and its user can log in", lambda: logged_in(grid), PATIENCE, 3)
    values = {"ip": re.escape(own.free), "gateway": re.escape(own.gateway), "key": re.escape(key), "mac": row["mac"]}
    mark = "next-field"
    # After the last answer too: what ssh says at its end belongs to none.
    script = "export SYSTEMD_PAGER=cat; " + "".join(
        f"{{ {look.command.format()}; }} 2>&1; echo {mark}; " for look in INSIDE.values()
    )
    said = dict(zip(INSIDE, (part.strip() for part in inside(grid, script).split(mark))))
    wrong = {
        field: said.get(field)
        for field, look in INSIDE.items()
        if not re.search(
            re.sub(r"\{(\w+)\}", lambda name: values.get(name[1], name[0]), look.matches), said.get(field, "")
        )
    }
    assert wrong == {}


def test_without_an_agent_the_machine_itself_is_asked(grid: Grid, guest, ansible):
    row, own, dummy = guest
    inside(grid, "sudo -n systemctl stop qemu-guest-agent")
    # Whoever speaks to the machine by IP would put it into the neighbour table
    bridge = "$(virsh net-info virtuoso | sed -n 's/^Bridge: *//p')"
    on_host(row["provider"], f"ip neigh flush to {own.free} dev {bridge} nud all; ip link set dev {bridge} arp off")
    try:
        args = {"machines": [MACHINE], "wait_for_address": 20}
        (facts,) = ansible(row["provider"], "virtuoso.grid.machine_info", args)["machines"]
        assert not on_host(row["provider"], f"ip neigh show to {own.free} nud reachable")
    finally:
        on_host(row["provider"], f"ip link set dev {bridge} arp on")
    assert (facts["addresses"], facts["address_source"]) == ([own.free], "neighbour")
