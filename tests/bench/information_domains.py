# SPDX-License-Identifier: GPL-3.0-or-later
"""Inventories of many defined domains on a lab provider: ours from the store that ``refresh`` filled, and a plugin that
asks libvirt.

The domains have no disks and are never started. They carry the metadata that machines of the collection have.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import typing as t
import uuid
import xml.etree.ElementTree as ET

from information import WORK, list_inventory, row
from measure import CHECKOUT, Row, play

DOMAINS = 500
ROUNDS = 5
PROVIDER = "provider1"
ADDRESS = "198.18.0.21"


def domain(number: int) -> dict[str, str]:
    """Name, uuid and XML of a machine that is defined and never started."""
    from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor import metadata

    name, own = f"benchdomain{number:03}", str(uuid.uuid4())
    spec = {
        **{
            "uuid": own,
            "name": name,
            "owner": "bench",
            "site": "site-a",
            "network": "virtuoso",
            "goal": "balance",
            "user": "root",
        },
        **{
            "python": "/usr/bin/python3",
            "generation": 1,
            "image": {"name": "tiny@1", "digest": "sha256:" + "a" * 64},
            "tags": [],
        },
    }
    root = ET.Element("domain", type="qemu")
    for tag, text in (("name", name), ("uuid", own), ("memory", "65536"), ("vcpu", "1")):
        ET.SubElement(root, tag).text = text
    ET.SubElement(root, "metadata").append(metadata.element(metadata.of_spec(spec, False)))
    ET.SubElement(ET.SubElement(root, "os"), "type", arch="x86_64", machine="pc").text = "hvm"
    return {"name": name, "uuid": own, "xml": ET.tostring(root, encoding="unicode")}


_READ = """
import sys, time
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader
init_plugin_loader()
begin = time.monotonic()
hosts = len(InventoryManager(DataLoader(), sources=[sys.argv[1]]).hosts)
print(time.monotonic() - begin, hosts)
"""


def read_inventory(source: str) -> float:
    """Seconds that Ansible takes to read an inventory once it is loaded. A play waits for this; starting the program
    and printing the list don't count."""
    environment = {**os.environ, "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "true"}
    done = subprocess.run(
        [sys.executable, "-c", _READ, source],
        cwd=CHECKOUT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"bench: reading {source} failed\n{done.stderr[-2000:]}")
    return float(done.stdout.split()[0])


def measure() -> list[Row]:
    """Seconds of ``ansible-inventory --list`` and of reading alone, medians, with an empty inventory as the floor; and
    of one refresh."""
    folder = WORK / "domains"
    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.glob("grid.db*"):
        file.unlink()
    domains = [domain(number) for number in range(DOMAINS)]
    (folder / "domains.json").write_text(json.dumps(domains), encoding="utf-8")
    (folder / "grid.yml").write_text("plugin: virtuoso.grid.grid\nstore: grid.db\n", encoding="utf-8")
    lab = CHECKOUT / "build" / "lab"
    # The ssh transport of libvirt has no option for a file of known hosts, only one for the command.
    ssh = folder / "ssh"
    ssh.write_text(
        f'#!/bin/sh\nexec ssh -o UserKnownHostsFile={lab}/known_hosts -o StrictHostKeyChecking=yes "$@"\n',
        encoding="utf-8",
    )
    ssh.chmod(0o755)
    uri = f"qemu+ssh://root@{ADDRESS}/system?keyfile={lab}/id_ed25519&command={ssh}&no_tty=1"
    (folder / "peer.yml").write_text(json.dumps({"plugin": "community.libvirt.libvirt", "uri": uri}), encoding="utf-8")
    shared: dict[str, t.Any] = {
        "bench_provider": PROVIDER,
        "bench_domains_file": str(folder / "domains.json"),
        "virtuoso_store": str(folder / "grid.db"),
    }
    (folder / "empty.yml").write_text("all: {}\n", encoding="utf-8")
    sources = {"virtuoso": "grid.yml", "community.libvirt.libvirt": "peer.yml", "floor": "empty.yml"}
    seconds: dict[str, list[float]] = {who: [] for who in sources}
    reading: dict[str, list[float]] = {who: [] for who in sources}
    play("machines_prepare", **shared)
    try:
        play("information_define", **shared)
        look = play("information_refresh", **shared)
        for dummy in range(ROUNDS):
            for who, file in sources.items():
                seconds[who].append(list_inventory(folder / file, folder / f"{who}.json"))
                reading[who].append(read_inventory(str(folder / file)))
                listed = json.loads((folder / f"{who}.json").read_text(encoding="utf-8"))["_meta"]["hostvars"]
                if who != "floor" and sum(name.startswith("benchdomain") for name in listed) != DOMAINS:
                    raise SystemExit(f"bench: {who} doesn't list {DOMAINS} domains")
    finally:
        play("information_undefine", **shared)
    case = f"inventory --list, {DOMAINS} defined domains on a lab provider"
    middle = {who: statistics.median(values) for who, values in seconds.items()}
    rows = [row(case, who, "time", value) for who, value in middle.items()]
    # Most of the time is Ansible's own start and printing: nothing can be below the floor.
    return [
        *rows,
        *(
            row(f"reading an inventory, {DOMAINS} defined domains", who, "time", statistics.median(values))
            for who, values in reading.items()
        ),
        row(f"refresh of {DOMAINS} domains, once before", "virtuoso", "time", look),
    ]
