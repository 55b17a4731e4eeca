# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A grid that is nowhere: sites, providers, networks and machines by a seed, written to a store as plays would leave
it."""

from __future__ import annotations

import random
import uuid

from ansible_collections.virtuoso.grid.plugins.module_utils._information.store import schema, writing
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store.database import Store

GIB, MIB = 2**30, 2**20
SEEN = "2026-11-20T12:00:00Z"
SIZES = (128 * MIB, 192 * MIB, 256 * MIB, 512 * MIB, GIB, 2 * GIB, 4 * GIB)
WEIGHTS = (10, 10, 20, 30, 15, 10, 5)
_DIGEST = "sha256:" + "a" * 64


class Grid:
    """Rows of a grid of ``machines`` machines; the same seed makes the same rows, uuids too."""

    def __init__(
        self, machines: int, *, providers: int = 0, sites: int = 20, networks: int = 0, futures: int = 0, seed: int = 1
    ) -> None:
        self.random = random.Random(seed)
        self.sites = [{"uuid": self.uuid(), "name": f"site{number:02}"} for number in range(sites)]
        self.networks = [
            {"uuid": self.uuid(), "name": f"net{number:05}"} for number in range(networks or max(1, machines // 100))
        ]
        self.image, self.layer = self.uuid(), self.uuid()
        self.providers = [self._provider(number) for number in range(providers or max(1, machines // 100))]
        self.machines = [self._machine(number) for number in range(machines)]
        self.futures = [{"uuid": row["uuid"]} for row in self.random.sample(self.machines, futures)]

    def uuid(self) -> str:
        """A random uuid of this grid's own."""
        return str(uuid.UUID(int=self.random.getrandbits(128), version=4))

    def _provider(self, number: int) -> writing.Row:
        cpus, memory = self.random.choice((8, 16, 32, 64)), self.random.choice((16, 64, 128, 256)) * GIB
        return {
            **{
                "uuid": self.uuid(),
                "name": f"provider{number:05}",
                "kind": "provider",
                "site": self.random.choice(self.sites)["uuid"],
            },
            **{
                "address": f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}",
                "login": "root",
                "cpus": cpus,
                "memory": memory,
            },
            **{"disk": 1000 * GIB, "seen": SEEN, "architecture": self.random.choice(("x86_64",) * 4 + ("aarch64",))},
            **{
                "virtualization": "kvm",
                "libvirt_version": "9.0.0",
                "qemu_version": "7.2.22",
                "load": round(self.random.random() * cpus, 2),
            },
            **{"cpus_allocated": 0, "memory_free": int(memory * self.random.random()), "memory_allocated": 0},
            **{"disk_free": 900 * GIB, "disk_allocated": 0, "price": round(self.random.random(), 3)},
        }

    def _machine(self, number: int) -> writing.Row:
        provider = self.random.choice(self.providers)
        network = self.random.choice(self.networks)
        mac = "52:54:00:" + ":".join(f"{self.random.randrange(256):02x}" for dummy in range(3))
        address = f"172.{16 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"
        return {
            **{"uuid": self.uuid(), "name": f"machine{number:06}", "kind": "machine", "site": provider["site"]},
            **{
                "state": self.random.choice(("running", "running", "running", "stopped")),
                "address": address,
                "generation": 1,
            },
            **{
                "cpus": self.random.choice((1, 2, 4)),
                "memory": self.random.choices(SIZES, WEIGHTS)[0],
                "disk": 10 * GIB,
                "seen": SEEN,
            },
            "facts": {
                **{
                    "image": {"name": "debian-12@1", "digest": _DIGEST},
                    "addresses": [address],
                    "mac": mac,
                    "network": network["name"],
                },
                **{
                    "display": {"type": "vnc", "host": "127.0.0.1", "port": 5900},
                    "goal": "balance",
                    "tags": [],
                    "user": "debian",
                },
                "python": "/usr/bin/python3",
            },
            **{
                "_provider": provider["uuid"],
                "_network": network,
                "_mac": mac,
                "_owner": f"owner{self.random.randrange(50):02}",
            },
        }

    def _order(self, row: writing.Row) -> writing.Row:
        spec = {
            **{
                "owner": row["_owner"],
                "name": row["name"],
                "image": "debian-12",
                "vcpus": row["cpus"],
                "memory": row["memory"],
            },
            **{
                "packages": [],
                "users": [],
                "network": row["_network"]["name"],
                "display": "vnc",
                "performance": {},
                "goal": "balance",
            },
            **{"tags": [], "disk": row["disk"]},
        }
        return {
            "uuid": row["uuid"],
            "owner": row["_owner"],
            "spec": spec,
            "generation": 1,
            "created": SEEN,
            "updated": SEEN,
        }

    def write(self, location: str) -> Store:
        """Make a store of it."""
        store = Store(location)
        with store.writing() as connection:
            for kind, table, rows in (("site", schema.SITE, self.sites), ("network", schema.NETWORK, self.networks)):
                writing.add_objects(connection, kind, rows)
                writing.insert(connection, table, rows)
            writing.add_objects(connection, "layer", [{"uuid": self.layer}])
            writing.insert(connection, schema.LAYER, [{"uuid": self.layer, "digest": _DIGEST, "size": 400 * MIB}])
            writing.add_objects(connection, "image", [{"uuid": self.image}])
            image = {
                "uuid": self.image,
                "name": "debian-12",
                "version": "1",
                "digest": _DIGEST,
                "virtual_size": 2 * GIB,
            }
            writing.insert(connection, schema.IMAGE, [image])
            writing.insert(connection, schema.IMAGE_LAYER, [{"image": self.image, "position": 0, "layer": self.layer}])
            writing.add_hosts(connection, self.providers)
            writing.add_hosts(
                connection, [{name: value for name, value in row.items() if name[0] != "_"} for row in self.machines]
            )
            writing.insert(connection, schema.ORDERS, [self._order(row) for row in self.machines])
            made_of = (("provider", "_provider"), ("image", None))
            writing.insert(
                connection,
                schema.VIRTUALIZATION,
                [
                    {"virtual": row["uuid"], "constituent": row[column] if column else self.image, "role": role}
                    for row in self.machines
                    for role, column in made_of
                ],
            )
            plugs = [
                {"host": row["uuid"], "network": row["_network"]["uuid"], "mac": row["_mac"]} for row in self.machines
            ]
            writing.insert(connection, schema.INTERFACE, plugs)
            writing.insert(connection, schema.FUTURES, self.futures)
        return store
