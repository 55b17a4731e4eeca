# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the results of a play's tasks to findings (pure)."""

from __future__ import annotations

import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._doctor.decide.controller import NAME, judge_controller
from ansible_collections.virtuoso.grid.plugins.module_utils._doctor.decide.host import judge_host
from ansible_collections.virtuoso.grid.plugins.module_utils._doctor.decide.machine import judge_machine
from ansible_collections.virtuoso.grid.plugins.module_utils._doctor.decide.ports import judge_ports
from ansible_collections.virtuoso.grid.plugins.module_utils._doctor.findings import Finding
from ansible_collections.virtuoso.grid.plugins.module_utils._doctor.records import (
    Attempt,
    Controller,
    Host,
    Machine,
    MachineFacts,
    Reach,
    Source,
)

Json = t.Mapping[str, object]


def _mapping(value: object) -> Json:
    return value if isinstance(value, t.Mapping) else {}


def _list(value: object) -> t.List[Json]:
    return [_mapping(each) for each in value] if isinstance(value, (list, tuple)) else []


def judge(hosts: t.Optional[Json], controller: t.Optional[Controller], machine: t.Optional[Json]) -> t.List[Finding]:
    """The findings of what was asked for: of hosts and controller, of a machine, or of both.

    :param hosts: by name, the results of host_check.
    :param machine: as the option of the module doctor has it.
    """
    found: t.List[Finding] = []
    if hosts is not None and controller is not None:
        known = [host_of(name, _mapping(result)) for name, result in hosts.items()]
        found += judge_controller(controller, known)
        for host in known:
            found += judge_host(host, controller["now"])
        found += judge_ports(known)
    if machine is not None:
        found += judge_machine(machine_of(machine))
    return found


def host_of(name: str, result: Json) -> Host:
    """A host of what its task returned. One whose task failed, or never ran, was not reached."""
    host = result.get("host")
    if isinstance(host, t.Mapping):
        return t.cast(Host, host)
    stage = "connect" if result else "before"
    return {
        "name": name,
        "roles": [],
        "peers": [],
        "network": "",
        "way": {
            "reached": False,
            "error": str(result.get("msg") or "its task failed"),
            "stage": stage,
            "user": "",
            "become": "",
            "become_user": "",
            "password": False,
            "login_password": False,
            "offset_min": 0.0,
            "offset_max": 0.0,
        },
        "facts": None,
    }


def machine_of(asked: Json) -> Machine:
    """A machine of what the play's tasks returned of it."""
    name = str(asked["name"])
    rows = _list(_mapping(asked.get("orders")).get("machines"))
    order = next((each for each in rows if each.get("name") == name), {})
    provider = order.get("provider")
    looks, spec = _mapping(asked.get("looks")), _mapping(order.get("spec"))
    network = str(spec.get("network") or "")
    homes = [str(each.get("home")) for each in _list(asked.get("networks")) if each.get("name") == network]
    looked = _mapping(looks.get(str(provider)))
    facts = t.cast(t.Optional[MachineFacts], looked.get("machine") or None)
    if facts is not None:
        facts = t.cast(
            MachineFacts, {**facts, "seen": [*facts["seen"], *_at_home(_mapping(asked.get("leases")), facts["mac"])]}
        )
    ip = str(_mapping(spec.get("address")).get("ip") or "").partition("/")[0]
    return {
        "name": name,
        "known": bool(order),
        "provider": str(provider) if provider else None,
        "homes": [home for home in homes if home],
        "port": int(str(asked["port"])),
        "ordered": ip or None,
        "facts": facts,
        "error": str(looked["msg"]) if "msg" in looked else None,
        "reaches": [_reach(host, _mapping(look), str(provider)) for host, look in looks.items()],
    }


def _at_home(leases: Json, mac: str) -> t.List[Source]:
    """The addresses that homes have seen."""
    found: t.List[Source] = []
    for result in leases.values():
        lease = _mapping(_mapping(_mapping(result).get("leases")).get(mac))
        if lease.get("address"):
            found.append({"source": "home", "addresses": [str(lease["address"])]})
    return found


def _reach(host: str, look: Json, provider: str) -> Reach:
    role = "controller" if host == NAME else "provider" if host == provider else "home"
    return {
        "host": host,
        "role": role,
        "attempts": t.cast(t.Dict[str, Attempt], dict(_mapping(look.get("attempts")))),
        "error": str(look["msg"]) if "msg" in look else None,
    }
