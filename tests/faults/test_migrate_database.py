# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Debian guest on the user's own LAN, with a database that writes, moves there and back, live, asleep and shut down:
nothing is lost.

The network is the overlay's; home pings the guest every 10 ms and has one TCP connection to it, over which the
database's rows are acknowledged.
"""

from __future__ import annotations

import json
import typing as t

import pytest
from moving import LAB, Bed, Writer, other
from overlays import HOME, HOME_NETWORKS, NETWORK, Overlay, on_host
from test_migrate import Ping
from walking import PROVIDERS, Grid, Run, until

_WRITE = (
    "import sqlite3,sys,time;c=sqlite3.connect(sys.argv[1],isolation_level=None);c.execute('pragma synchronous=full');"
    "c.execute('create table if not exists t(n integer primary key)');n=0\n"
    "while 1:\n n+=1;c.execute('insert into t values(?)',(n,));print(n,flush=True);time.sleep(0.02)"
)
_READ = (
    "import sqlite3,sys;c=sqlite3.connect(sys.argv[1]);[print(r[0]) for r in c.execute('select n from t order by n')];"
    "assert c.execute('pragma integrity_check').fetchone()[0]=='ok'"
)


class Database(Writer):
    """SQLite in the guest, each row committed to the disk before it is told."""

    USER = "alice"

    def script(self) -> str:
        return f'python3 -u -c "{_WRITE}" {self.file}'

    def reader(self) -> str:
        return f'python3 -c "{_READ}" {self.file}'


class OnOverlay(Grid):
    """Playbooks that know of the network."""

    def start(
        self, playbook: str, *arguments: str, machines: t.Sequence[t.Any] | None = None, **variables: t.Any
    ) -> Run:
        known = {"virtuoso_networks": [{"name": NETWORK, "home": HOME}], "virtuoso_home_networks": HOME_NETWORKS}
        return super().start(playbook, *arguments, machines=machines, **{**known, **variables})


@pytest.fixture(scope="module", name="bed")
def _bed() -> t.Iterator[Bed]:
    grid = OnOverlay(
        "it-data", machine={"image": "debian-12", "memory": "512 MiB", "display": "none", "network": NETWORK}
    )
    overlay = Overlay(grid)
    overlay.clean()
    key = (LAB / "id_ed25519.pub").read_text(encoding="ascii").strip()
    try:
        overlay.make()
        users = [{"name": "alice", "ssh_authorized_keys": [key]}]
        patient = {"virtuoso_screenshots": False, "virtuoso_address_timeout": 400}
        # The image may have to be built first.
        grid.start("deploy", "--limit", PROVIDERS[0], machines=grid.machines(1, users=users), **patient).wait(
            900
        ).succeeded()
        bed = Bed(grid, grid.names(1)[0])
        until("the guest's SSH server", lambda: _writes(bed), 300, 3)
        yield bed
    finally:
        grid.clean()
        overlay.clean()


def _writes(bed: Bed, name: str = "first") -> bool:
    try:
        Database(bed.address, f"/home/alice/{name}.db").stop()
    except AssertionError:
        return False
    return True


def admitted(bed: Bed) -> list[str]:
    """The providers whose end of the network lets the machine speak."""
    mac = on_host(bed.place[0], f"virsh domiflist {bed.name} | grep -oE '([0-9a-f]{{2}}:){{5}}[0-9a-f]{{2}}'").strip()
    parts = {host: json.loads(on_host(host, "cat /etc/virtuoso/overlay/part.json")) for host in PROVIDERS}
    return [host for host, part in parts.items() if mac in [guest["mac"] for guest in part["guests"]]]


@pytest.mark.parametrize("mode", ["live", "live", "hibernated", "hibernated"])
def test_no_write_and_no_connection_is_lost(bed: Bed, mode: str):
    source = bed.place[0]
    target = other(source)
    ping, database = Ping(bed.address), Database(bed.address, f"/home/alice/{mode}-to-{target}.db")
    run = bed.grid.play("migrate", "-e", f"machines={bed.name}", "-e", f"to={target}", "-e", f"mode={mode}").succeeded()
    assert bed.whole(target) == "running" and admitted(bed) == [target]
    before = len(database.written())
    until("more rows at the target", lambda: len(database.written()) > before, 60)
    assert database.alive, "the connection broke"
    last = database.stop()
    assert database.written()[:last] == list(range(1, last + 1))
    silence = ping.silence()
    stats = run.row(bed.name).get("stats")
    print(f"{mode} from {source} to {target}: {last} rows, silent for {silence:.0f} ms, {stats}")
    if mode == "live":
        assert silence <= 2 * stats["downtime"] + 100


def test_nothing_that_was_written_is_lost_when_it_moves_shut_down(bed: Bed):
    source = bed.place[0]
    target = other(source)
    database = Database(bed.address, "/home/alice/cold.db")
    until("some rows", lambda: len(database.written()) > 50, 60)
    last = database.stop()
    bed.grid.play(
        "power", "-e", f"machines={bed.name}", "-e", "state=stopped", virtuoso_shutdown_timeout=150
    ).succeeded()
    bed.grid.play("migrate", "-e", f"machines={bed.name}", "-e", f"to={target}").succeeded()
    assert bed.whole(target) == "shut off" and admitted(bed) == [target]
    address = bed.address
    bed.grid.start("power", "-e", f"machines={bed.name}", "-e", "state=running", virtuoso_address_timeout=400).wait(
        500
    ).succeeded()
    bed.learn_address()
    assert bed.address == address, "the machine has another address at home"
    # A database of its own, for its rows are numbered from one.
    until("the guest's SSH server", lambda: _writes(bed, "after"), 300, 3)
    assert database.written()[:last] == list(range(1, last + 1))
