# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each code has a case that leads to it, and stands in docs/doctor.md as the code has it."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._doctor.decide.all import host_of, judge, machine_of
from ansible_collections.virtuoso.grid.plugins.module_utils._doctor.decide.controller import judge_controller
from ansible_collections.virtuoso.grid.plugins.module_utils._doctor.decide.host import judge_host
from ansible_collections.virtuoso.grid.plugins.module_utils._doctor.decide.machine import judge_machine, kind_of
from ansible_collections.virtuoso.grid.plugins.module_utils._doctor.decide.ports import judge_ports
from ansible_collections.virtuoso.grid.plugins.module_utils._doctor.findings import CHECKS, CODES

ROOT = Path(__file__).parents[5]
NOW = 1_800_000_000.0
DAY = 86400.0
PORTS = {"22": "open", "10808": "open", "49215": "open", "10872": "open"}


def certificate(name="server-cert.pem", **more):
    return {
        "path": f"/etc/pki/qemu/{name}",
        "present": True,
        "error": None,
        "not_before": NOW - DAY,
        "not_after": NOW + 400 * DAY,
        "digest": "aa",
        **more,
    }


def facts(**more):
    return {
        "set_up": True,
        "system": {"id": "debian", "like": [], "version": "12", "name": "Debian GNU/Linux 12 (bookworm)"},
        "python": {
            "executable": "/usr/bin/python3",
            "version": [3, 11, 2],
            "libvirt": True,
            "packaged_libvirt": True,
        },
        "clock": {"begin": NOW, "end": NOW + 6, "synchronised": True},
        "kvm": {"flags": True, "device": True, "error": None, "recorded": "kvm"},
        "libvirt": {
            "answers": True,
            "hangs": False,
            "error": None,
            "version": [9, 0, 0],
            "qemu": [7, 2, 22],
            "security": ["apparmor", "dac"],
            "networks": [{"name": "virtuoso", "active": True, "autostart": True}],
        },
        "certificates": [certificate(), certificate("ca-cert.pem")],
        "depot": {"path": "/var/lib/virtuoso", "present": True, "size": 100 << 30, "free": 50 << 30},
        "apparmor": {"enabled": True, "template": True},
        "firewall": {"readable": True, "input": []},
        "ports": {
            "begin": NOW,
            "end": NOW + 5,
            "listening": {"10808": True, "49215": True, "10872": True},
            "attempts": {},
        },
        **more,
    }


def host(name="p1", **more):
    return {
        "name": name,
        "roles": ["provider"],
        "peers": [],
        "network": "virtuoso",
        "way": {
            "reached": True,
            "error": None,
            "stage": "",
            "user": "ops",
            "become": "sudo",
            "become_user": "root",
            "password": False,
            "login_password": False,
            "offset_min": -0.4,
            "offset_max": 0.4,
        },
        "facts": facts(),
        **more,
    }


def way(**more):
    base = host()
    failed = bool(more.get("stage")) or not more.get("reached", True)
    return {**base, "way": {**base["way"], **more}, "facts": None if failed else base["facts"]}


def having(**more):
    """A host with one record of its facts changed: having(kvm={"flags": False})."""
    made = host()
    for key, value in more.items():
        old = made["facts"][key]
        made["facts"][key] = {**old, **value} if isinstance(old, dict) else value
    return made


def codes(findings):
    return [each["code"] for each in findings]


def of(findings, code):
    found = [each for each in findings if each["code"] == code]
    assert found, f"{code} is not in {codes(findings)}"
    return found[0]


HOSTS = {
    "unreachable": way(reached=False, stage="connect", error="ssh: connect to host 192.0.2.1 port 22: timed out"),
    "host_key": way(reached=False, stage="connect", error="Host key verification failed."),
    "login_refused": way(reached=False, stage="connect", error="ops@192.0.2.1: Permission denied (publickey)."),
    "not_asked": host_of("p1", {}),
    "facts_failed": way(stage="facts", error="MODULE FAILURE"),
    "become_password_missing": way(stage="become", error="Missing sudo password"),
    "become_password_wrong": way(stage="become", error="Incorrect sudo password"),
    "become_absent": way(stage="become", error="/bin/sh: 1: sudo: not found"),
    "become_failed": way(stage="become", error="ops is not in the sudoers file"),
    "not_root": way(become_user="ops"),
    "login_by_password": way(login_password=True),
    "python_missing": way(stage="python", error="/usr/bin/python3: not found"),
    "setup_pending": having(set_up=False),
    "python_old": having(python={"version": [3, 7, 3]}),
    "libvirt_library_missing": having(python={"libvirt": False, "packaged_libvirt": False}),
    "python_other": having(python={"executable": "/opt/bin/python3", "libvirt": False}),
    "distribution_unsupported": having(system={"id": "alpine", "like": [], "version": "3.20"}),
    "distribution_untested": having(system={"id": "ubuntu", "like": ["debian"], "version": "24.04"}),
    "clock_off": way(offset_min=-9.0, offset_max=-8.0),
    "clock_far_off": way(offset_min=7200.0, offset_max=7201.0),
    "clock_unsynchronised": having(clock={"synchronised": False}),
    "kvm_missing": having(kvm={"flags": False, "recorded": "qemu"}),
    "kvm_unusable": having(kvm={"error": "No such device", "recorded": "qemu"}),
    "kvm_gone": having(kvm={"device": False, "error": "No such file or directory"}),
    "kvm_unused": having(kvm={"recorded": "qemu"}),
    "libvirt_down": having(libvirt={"answers": False, "error": "Failed to connect socket"}),
    "libvirt_hangs": having(libvirt={"answers": False, "hangs": True, "error": "no answer within 10 s"}),
    "libvirt_old": having(libvirt={"version": [8, 0, 0]}),
    "qemu_missing": having(libvirt={"qemu": [], "error": "Cannot find suitable emulator"}),
    "qemu_old": having(libvirt={"qemu": [6, 2, 0]}),
    "network_missing": having(libvirt={"networks": []}),
    "network_inactive": having(libvirt={"networks": [{"name": "virtuoso", "active": False, "autostart": True}]}),
    "network_not_autostarted": having(libvirt={"networks": [{"name": "virtuoso", "active": True, "autostart": False}]}),
    "certificate_missing": having(certificates=[certificate(present=False)]),
    "certificate_expired": having(certificates=[certificate(not_after=NOW - DAY)]),
    "certificate_expires": having(certificates=[certificate(not_after=NOW + 29 * DAY)]),
    "certificate_early": having(certificates=[certificate(not_before=NOW + DAY)]),
    "certificate_unreadable": having(certificates=[certificate(error="no PEM")]),
    "depot_missing": having(depot={"present": False}),
    "depot_full": having(depot={"free": (1 << 30) - 1}),
    "depot_low": having(depot={"free": 9 << 30}),
    "apparmor_absent": having(apparmor={"enabled": False}),
    "apparmor_unused": having(libvirt={"security": ["dac"]}),
    "apparmor_template_missing": having(apparmor={"template": False}),
    "depot_confined": having(depot={"path": "/usr/lib/virtuoso"}),
}


def test_a_host_that_is_well_has_only_ok():
    findings = judge_host(host(), NOW)
    assert set(codes(findings)) == {"ok"}
    assert {each["check"] for each in findings} >= {"way", "become", "python", "system", "clock", "kvm", "libvirt"}
    assert all(each["remedy"] == "" for each in findings)


@pytest.mark.parametrize("code", HOSTS)
def test_what_is_wrong_with_a_host(code):
    found = of(judge_host(copy.deepcopy(HOSTS[code]), NOW), code)
    assert (found["check"], found["state"], found["host"]) == (CODES[code].check, CODES[code].state, "p1")
    assert "{" not in found["remedy"]


@pytest.mark.parametrize(
    ("user", "become", "password", "told"),
    [
        ("root", "", False, "the login is root's"),
        ("root", "sudo", False, "the login is root's"),
        ("ops", "sudo", False, "ops becomes root by sudo, without a password"),
        ("ops", "sudo", True, "ops becomes root by sudo, with a password"),
    ],
)
def test_how_root_is_become(user, become, password, told):
    findings = judge_host(way(user=user, become=become, password=password), NOW)
    assert [each["message"] for each in findings if each["check"] == "become"] == [told]


def test_a_host_before_setup_is_not_blamed_for_what_setup_makes():
    bare = facts(
        set_up=False,
        python={"executable": "/usr/bin/python3", "version": [3, 13, 5], "libvirt": False, "packaged_libvirt": False},
        certificates=[certificate(present=False)],
    )
    bare["libvirt"].update(answers=False, error="the Python library of libvirt is not installed", networks=[])
    bare["depot"]["present"] = False
    bare["kvm"]["recorded"] = None
    findings = judge_host(host(facts=bare), NOW)
    assert [each["code"] for each in findings if each["state"] != "ok"] == ["setup_pending"]
    assert "installs libvirt" in of(findings, "setup_pending")["remedy"]


@pytest.mark.parametrize(
    ("roles", "checks"), [(["home"], {"kvm", "libvirt", "depot", "setup"}), (["image_server"], {"kvm", "libvirt"})]
)
def test_other_hosts_are_not_judged_as_providers(roles, checks):
    assert not {each["check"] for each in judge_host(host(roles=roles), NOW)} & checks


@pytest.mark.parametrize(("low", "high"), [(-1.0, 30.0), (-30.0, 1.0), (1.9, 2.5)])
def test_a_clock_that_may_be_right_is_right(low, high):
    assert "clock_off" not in codes(judge_host(way(offset_min=low, offset_max=high), NOW))


# --- ports


def tried(**results):
    return {port: {"result": result, "error": None} for port, result in {**PORTS, **results}.items()}


def pair(attempts, *, wanted=(22, 10808, 10872, 49215), roles=("provider",), back=None, **theirs):
    """Two hosts, the first of which tried the second."""
    one, other = host("p1"), host("p2", roles=list(roles))
    one["peers"] = [{"name": "p2", "address": "p2.example", "ports": list(wanted)}]
    one["facts"]["ports"]["attempts"] = {"p2": {port: attempts[port] for port in map(str, wanted)}}
    other["facts"]["ports"].update(attempts={"p1": back} if back else {}, **theirs)
    other["peers"] = [{"name": "p1", "address": "p1.example", "ports": [22]}] if back else []
    return [one, other]


BETWEEN = {
    "peer_unresolved": pair(tried(**dict.fromkeys(PORTS, "unresolved"))),
    "images_blocked": pair(tried(**{"22": "timeout", "10808": "timeout"})),
    "images_tls_blocked": pair(tried(**{"10808": "timeout"})),
    "migration_blocked": pair(tried(**{"49215": "refused"})),
    "nbd_blocked": pair(tried(**{"10872": "unreachable"})),
    "ssh_blocked": pair(tried(**{"22": "timeout"}), wanted=(22,), roles=("home",)),
    "ports_unprobed": pair(tried(**{"49215": "refused"}), begin=NOW + 60, end=NOW + 65),
    "no_peers": [host()],
    "firewall_drops": [having(firewall={"input": ["ip filter INPUT (policy drop)"]})],
    "firewall_unread": [having(firewall={"readable": False})],
}


@pytest.mark.parametrize("code", BETWEEN)
def test_what_is_wrong_between_hosts(code):
    found = of(judge_ports(copy.deepcopy(BETWEEN[code])), code)
    assert (found["check"], found["state"], found["host"]) == (CODES[code].check, CODES[code].state, "p1")
    assert "{" not in found["remedy"]


def test_open_ports_are_well_and_excuse_a_firewall_that_drops():
    hosts = pair(tried())
    hosts[1]["facts"]["firewall"]["input"] = ["inet filter input (policy drop)"]
    findings = judge_ports(hosts)
    assert codes([each for each in findings if each["host"] == "p1"]) == ["ok", "ok"]
    assert "firewall_drops" not in codes(findings)


def test_a_refusal_where_nothing_listened_says_nothing():
    hosts = pair(tried(**{"49215": "refused"}))
    hosts[1]["facts"]["ports"]["listening"]["49215"] = False
    assert "migration_blocked" not in codes(judge_ports(hosts))


def test_ssh_one_way_is_enough():
    back = {"22": {"result": "open", "error": None}}
    hosts = pair(tried(**{"22": "timeout"}), wanted=(22,), roles=("home",), back=back)
    assert "ssh_blocked" not in codes(judge_ports(hosts))


def test_a_peer_that_is_not_reached_is_not_blamed_twice():
    hosts = pair(tried(**dict.fromkeys(PORTS, "timeout")))
    hosts[1]["facts"] = None
    assert codes(judge_ports(hosts)) == ["no_peers", "ok"]


# --- the controller


def controller(**more):
    return {
        "ansible": "2.18.19",
        "python": "/venv/bin/python",
        "libraries": {"SQLAlchemy": "2.0.44", "cryptography": "46.0.1"},
        "store": "/srv/grid.db",
        "store_error": None,
        "store_code": None,
        "store_remedy": None,
        "state_dir": "/srv/state",
        "state_mode": 0o700,
        "state_owned": True,
        "authority": certificate("ca-cert.pem"),
        "now": NOW,
        **more,
    }


HERE = {
    "ansible_old": controller(ansible="2.17.14"),
    "library_missing": controller(libraries={"SQLAlchemy": None, "cryptography": "46"}),
    "store_older": controller(store_code="store_older", store_error="the store has version 1"),
    "store_unusable": controller(store_code="store_corrupt", store_error="damaged", store_remedy="Put back a copy"),
    "state_open": controller(state_mode=0o755),
    "state_writable": controller(state_mode=0o770),
    "state_foreign": controller(state_owned=False),
    "authority_missing": controller(authority=certificate(present=False)),
    "authority_expired": controller(authority=certificate(not_after=NOW - DAY)),
    "authority_expires": controller(authority=certificate(not_after=NOW + DAY)),
    "authority_differs": controller(authority=certificate(digest="bb")),
}


@pytest.mark.parametrize("code", HERE)
def test_what_is_wrong_with_the_controller(code):
    found = of(judge_controller(HERE[code], [host()]), code)
    assert (found["check"], found["state"]) == (CODES[code].check, CODES[code].state)
    assert found["host"] == ("p1" if code == "authority_differs" else "controller")
    assert "{" not in found["remedy"]


def test_a_controller_that_is_well_has_only_ok():
    assert set(codes(judge_controller(controller(), [host()]))) == {"ok"}


def test_an_old_sqlalchemy_is_as_good_as_none():
    found = judge_controller(controller(libraries={"SQLAlchemy": "1.4.46", "cryptography": "38.0.4"}), [])
    assert "'SQLAlchemy>=2'" in of(found, "library_missing")["remedy"]


@pytest.mark.parametrize("code", ["store_missing", "library_missing"])
def test_no_store_yet_is_no_problem(code):
    found = judge_controller(controller(store_code=code, store_error="there is no store"), [])
    assert {each["state"] for each in found if each["check"] == "store"} <= {"ok"}


def test_before_the_first_setup_no_authority_is_missed():
    made = controller(authority=certificate(present=False), state_mode=None)
    bare = host(facts=facts(set_up=False))
    assert set(codes(judge_controller(made, [bare]))) == {"ok"}


# --- a machine


def machine(**more):
    return {
        "name": "web1",
        "known": True,
        "provider": "p1",
        "homes": [],
        "port": 443,
        "ordered": None,
        "facts": seen(),
        "error": None,
        "reaches": reaches(provider="open"),
        **more,
    }


def seen(*addresses, **more):
    found = addresses or ("192.168.140.7",)
    return {
        "present": True,
        "state": "running",
        "seen": [{"source": "lease", "addresses": list(found)}],
        "ordered": None,
        "network": "virtuoso",
        "bridge": "virtuoso0",
        "mac": "52:54:00:00:00:01",
        "mode": "nat",
        "rules": [],
        **more,
    }


def reaches(**results):
    return [
        {
            "host": role,
            "role": role,
            "attempts": {"192.168.140.7": {"result": result, "error": "No route to host"}} if result else {},
            "error": None,
        }
        for role, result in results.items()
    ]


OUTSIDE = reaches(provider="open", controller="timeout")
MACHINES = {
    "machine_unknown": machine(known=False),
    "machine_unplaced": machine(provider=None),
    "machine_unseen": machine(facts=None),
    "machine_absent": machine(facts=seen(present=False)),
    "machine_not_running": machine(facts=seen(state="stopped")),
    "address_none": machine(facts=seen(seen=[])),
    "address_unseen": machine(facts=seen(seen=[]), ordered="192.168.140.9"),
    "address_link_local": machine(facts=seen("169.254.3.4")),
    "address_private": machine(),
    "address_shared": machine(facts=seen("100.64.1.2")),
    "address_public": machine(facts=seen("2600:1f18::7")),
    "address_special": machine(facts=seen("240.0.0.1", "127.0.0.1")),
    "port_open": machine(),
    "port_closed": machine(reaches=reaches(provider="refused")),
    "port_silent": machine(reaches=reaches(provider="timeout")),
    "port_unreachable": machine(reaches=reaches(provider="unreachable")),
    "port_blocked": machine(reaches=OUTSIDE),
    "port_untried": machine(reaches=reaches(provider="open", controller="")),
    "rules_stop": machine(facts=seen(rules=["ip filter FORWARD: policy drop"]), reaches=OUTSIDE),
    "rules_nat": machine(reaches=OUTSIDE),
    "rules_isolated": machine(facts=seen(mode="isolated"), reaches=OUTSIDE),
    "rules_route": machine(facts=seen(mode="route"), reaches=OUTSIDE),
}


@pytest.mark.parametrize("code", MACHINES)
def test_why_a_machine_is_not_reached(code):
    found = of(judge_machine(copy.deepcopy(MACHINES[code])), code)
    assert (found["check"], found["state"]) == (CODES[code].check, CODES[code].state)
    assert "{" not in found["remedy"]


@pytest.mark.parametrize(
    ("address", "code"),
    [
        ("10.1.2.3", "address_private"),
        ("172.31.0.1", "address_private"),
        ("192.168.1.1", "address_private"),
        ("fd00::1", "address_private"),
        ("100.127.255.254", "address_shared"),
        ("169.254.1.1", "address_link_local"),
        ("fe80::1", "address_link_local"),
        ("8.8.8.8", "address_public"),
        ("2a00:1450::1", "address_public"),
        ("127.0.0.1", "address_special"),
        ("224.0.0.5", "address_special"),
    ],
)
def test_what_an_address_is_worth(address, code):
    assert kind_of(address)[0] == code


def test_behind_nat_the_way_through_the_provider_is_named():
    findings = judge_machine(machine(reaches=OUTSIDE))
    assert "ssh -J p1" in of(findings, "port_blocked")["remedy"]
    assert "port_closed" not in codes(findings)


def test_libvirts_own_rules_explain_nat_and_are_not_to_be_removed():
    rules = ["ip filter LIBVIRT_FWI: reject", "ip filter FORWARD: policy drop"]
    findings = judge_machine(machine(facts=seen(rules=rules), reaches=OUTSIDE))
    assert "LIBVIRT_FWI" in of(findings, "rules_nat")["message"]
    assert ["FORWARD" in each["message"] for each in findings if each["code"] == "rules_stop"] == [True]


def test_a_guest_that_does_not_answer_is_the_first_thing_to_mend():
    findings = judge_machine(machine(reaches=reaches(provider="refused", controller="timeout")))
    assert of(findings, "port_closed")["host"] == "provider"
    assert "own network" in of(findings, "port_blocked")["remedy"]


def test_on_a_home_network_the_home_answers_and_not_the_provider():
    on_lan = seen(mode="overlay", network="vb0123456789")
    tried_from = reaches(provider="unreachable", home="open", controller="timeout")
    findings = judge_machine(machine(facts=on_lan, homes=["home"], reaches=tried_from))
    assert [(each["host"], each["code"]) for each in findings if each["check"] == "port"] == [
        ("provider", "port_untried"),
        ("home", "port_open"),
        ("controller", "port_blocked"),
    ]
    assert "ssh -J home" in of(findings, "port_blocked")["remedy"]


def test_from_everywhere_open_nothing_is_said_of_rules():
    findings = judge_machine(
        machine(facts=seen(rules=["x: drop"]), reaches=reaches(provider="open", controller="open"))
    )
    assert {each["state"] for each in findings} == {"ok"}


def test_a_machine_is_made_of_the_tasks_results():
    row = {"name": "web1", "provider": "p1", "spec": {"network": "lan", "address": {"ip": "10.0.0.5/24"}}}
    asked = {
        "name": "web1",
        "port": "443",
        "orders": {"machines": [row]},
        "networks": [{"name": "lan", "home": "home1"}, {"name": "other", "home": "home2"}],
        "looks": {
            "p1": {"machine": seen(seen=[], mode="overlay"), "attempts": {}},
            "home1": {"attempts": {"10.0.0.5": {"result": "open", "error": None}}},
            "controller": {"msg": "it failed", "failed": True},
        },
        "leases": {"home1": {"leases": {"52:54:00:00:00:01": {"address": "10.0.0.5"}}}},
    }
    made = machine_of(asked)
    assert (made["provider"], made["homes"], made["port"], made["ordered"]) == ("p1", ["home1"], 443, "10.0.0.5")
    assert made["facts"]["seen"] == [{"source": "home", "addresses": ["10.0.0.5"]}]
    assert [each["role"] for each in made["reaches"]] == ["provider", "home", "controller"]
    assert made["reaches"][2]["error"] == "it failed"
    assert "port_open" in codes(judge(None, None, asked))


def test_a_host_whose_task_failed_has_a_row_and_stops_nobody():
    hosts = {"p1": {"host": host("p1")}, "p2": {"failed": True, "msg": "no such variable"}, "p3": {}}
    findings = judge(hosts, controller(), None)
    assert {each["host"] for each in findings} == {"controller", "p1", "p2", "p3"}
    assert "no such variable" in of(findings, "unreachable")["message"]


# --- all of them


def test_every_code_has_a_case():
    assert {*HOSTS, *BETWEEN, *HERE, *MACHINES} == set(CODES)


def test_every_code_has_a_check_that_is_described():
    assert {code.check for code in CODES.values()} <= set(CHECKS)
    assert {code.state for code in CODES.values()} <= {"ok", "warning", "error", "skipped"}
    assert [name for name, code in CODES.items() if code.state in ("warning", "error") and not code.remedy] == []


def table(page, heading):
    """The rows of the table under a heading of a page."""
    part = page.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [re.split(r"(?<!\\) \| ", line[2:-2]) for line in part.splitlines() if line.startswith("| ")]
    return rows[1:]


def test_the_page_has_the_same_checks_and_remedies():
    page = (ROOT / "docs/doctor.md").read_text(encoding="utf-8")
    assert table(page, "What is checked") == [[f"`{name}`", told] for name, told in CHECKS.items()]
    assert table(page, "Findings and what to do") == [
        [f"`{name}`", code.check, code.state, code.remedy.replace("{", "").replace("}", "").replace("|", "\\|") or "-"]
        for name, code in CODES.items()
    ]
