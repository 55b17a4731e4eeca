# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many plays at once on one store: each registers, orders and asks for the last gigabytes of one provider that they all
share."""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing

import sqlalchemy as sa
from ansible.module_utils.testing import patch_module_args
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store import query, schema
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store.database import Store
from ansible_collections.virtuoso.grid.plugins.modules import order, placement, registration

GIB = 2**30
IMAGE = {"name": "tiny@1", "digest": "sha256:" + "a" * 64, "size": 1, "virtual_size": 1}


def provider(name, memory, load=0.1):
    """A provider as provider_info returns it."""
    return {
        **{
            "name": name,
            "site": "north",
            "cpus": 1000,
            "cpus_allocated": 0,
            "disk": 9999 * GIB,
            "disk_free": 9999 * GIB,
            "disk_allocated": 0,
        },
        **{
            "memory": memory,
            "memory_free": memory,
            "memory_allocated": 0,
            "architecture": "x86_64",
            "networks": ["virtuoso"],
        },
        **{"machines": [], "images": [], "load": load},
    }


def call(module, **options):
    """What a module returns."""
    said = io.StringIO()
    with patch_module_args(options), contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        module.main()
    return json.loads(said.getvalue())


def play(location, number, room, start, results):
    """One play, as a process of its own; tells what it was refused."""
    start.wait(60)
    try:
        shared, mine = provider("shared", room * GIB), provider(f"own{number:02}", GIB, float(number))
        hosts = [{"name": facts["name"], "site": "north", "facts": facts} for facts in (mine, shared)]
        sample = {"object": "shared", "metric": "load", "value": number}
        entry = {"name": f"web{number:02}", "image": "tiny", "memory": "1 GiB", "disk": "1 GiB"}
        done = [
            call(registration, store=location, providers=hosts),
            call(registration, store=location, samples=[sample]),
        ]
        done.append(call(order, store=location, owner="alice", machines=[entry]))
        machine = {**done[-1]["machines"][0]["spec"], "uuid": done[-1]["machines"][0]["uuid"], "image": IMAGE}
        placed = call(placement, store=location, machines=[machine], providers=[shared], host_reserve="0")["machines"][
            0
        ]
        refused = [result["msg"] for result in done if result.get("failed")]
        if not placed.get("provider") and placed["failure"]["code"] != "no_provider":
            refused.append(placed["msg"])
        results.put(refused)
    except BaseException as exc:  # pylint: disable=broad-exception-caught
        results.put([repr(exc)])


def at_once(location, *, plays, room):
    """Start so many plays together; what became of them, judged by what is in the store afterwards."""
    context = multiprocessing.get_context("fork")
    results, start = context.Queue(), context.Event()
    processes = [context.Process(target=play, args=(location, number, room, start, results)) for number in range(plays)]
    for process in processes:
        process.start()
    start.set()
    errors = [error for dummy in processes for error in results.get(timeout=300)]
    for process in processes:
        process.join()
    with Store(location).reading() as connection:
        machines, hosts = query.machines(connection), {row["name"]: row["load"] for row in query.hosts(connection)}
        samples = connection.execute(sa.select(schema.SAMPLE.c.value)).scalars().all()
        sound = True
        if connection.dialect.name == "sqlite":
            sound = connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
            sound = sound and not connection.exec_driver_sql("PRAGMA foreign_key_check").all()
    numbers = range(plays)
    return {
        "errors": errors,
        "orders_lost": len({f"web{number:02}" for number in numbers} - {row["name"] for row in machines}),
        "hosts_lost": sum(hosts.get(f"own{number:02}") != float(number) for number in numbers),
        "samples_lost": len({float(number) for number in numbers} - set(samples)),
        "placed": sum(row["provider"] == "shared" for row in machines),
        "sound": sound,
    }
