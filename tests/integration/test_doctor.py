# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The doctor on the lab's hosts: it says what is well, finds what a test breaks, and checks the rest all the same."""

from __future__ import annotations

import contextlib
import subprocess
import typing as t

import pytest
from walking import PROVIDERS, Grid, Run, on_host

NOBODY = "198.18.0.250"
TABLE = "it_doctor"


def findings(run: Run) -> list[dict[str, t.Any]]:
    """What was found."""
    return next(iter(run.results("Judge what was seen").values()))["findings"]


def codes(run: Run, host: str, check: str | None = None) -> set[str]:
    """The codes of a host's findings, without those that are well."""
    return {
        each["code"]
        for each in findings(run)
        if each["host"] == host and each["code"] != "ok" and check in (None, each["check"])
    }


@contextlib.contextmanager
def dropping(host: str, ports: str) -> t.Iterator[None]:
    """A firewall of the host's own that drops these ports. A timer takes it away if the test is killed."""
    remove = f"nft delete table inet {TABLE}"
    on_host(host, f"systemd-run --quiet --unit {TABLE} --on-active=120 {remove}")
    on_host(host, f"nft add table inet {TABLE}")
    on_host(host, f"nft 'add chain inet {TABLE} input {{ type filter hook input priority 0; }}'")
    on_host(host, f"nft add rule inet {TABLE} input tcp dport {ports} drop")
    try:
        yield
    finally:
        on_host(host, f"systemctl stop {TABLE}.timer; {remove}", check=False)


def test_a_set_up_that_is_well_has_no_error_and_is_left_as_it_is(make_grid):
    grid: Grid = make_grid("it-doctor-well")
    run = grid.play("doctor").succeeded()
    assert [each for each in findings(run) if each["state"] == "error"] == []
    assert not any(run.changed.values())
    for provider in PROVIDERS:
        well = {each["check"] for each in findings(run) if each["host"] == provider and each["code"] == "ok"}
        assert {"way", "become", "setup", "python", "system", "libvirt", "network", "ports", "certificates"} <= well
    assert max(map(len, run.report["table"])) <= 120


def test_what_is_broken_is_found_and_keeps_nobody_from_being_checked(make_grid):
    grid: Grid = make_grid("it-doctor-ill", hosts={"nowhere": {"ansible_host": NOBODY}})
    source, target = PROVIDERS
    with dropping(target, "49152-49215"):
        run = grid.play("doctor", virtuoso_depot="/var/lib/virtuoso", virtuoso_provider_network={"name": "none"})
    assert run.returncode != 0
    assert codes(run, "nowhere") == {"unreachable"}
    assert codes(run, source, "ports") == {"migration_blocked"}
    assert codes(run, target, "ports") == set()
    assert codes(run, target, "network") == {"network_missing"}
    assert not any(run.changed.values())


@pytest.fixture(name="no_way")
def _no_way() -> t.Iterator[None]:
    """The controller has no way to the machines' private networks: nothing behind its own gateway is to be asked."""
    networks = ("198.18.101.0/24", "198.18.102.0/24")
    for network in networks:
        subprocess.run(["ip", "route", "replace", "unreachable", network], check=True)
    yield
    for network in networks:
        subprocess.run(["ip", "route", "delete", "unreachable", network], check=True)


@pytest.mark.usefixtures("no_way")
def test_why_a_machine_is_not_reached(make_grid):
    grid: Grid = make_grid("it-doctor-machine")
    (name,) = grid.names(1)
    assert codes(grid.play("doctor", machine=name, port=22), name) == {"machine_unknown"}
    grid.play("deploy", machines=grid.machines(1)).succeeded()
    (provider,) = {place for place, dummy in grid.domains()[name]}

    run = grid.play("doctor", machine=name, port=22).succeeded()
    assert codes(run, provider, "port") == {"port_open"}
    assert codes(run, "controller", "port") == {"port_blocked"}
    assert "rules_nat" in codes(run, name)
    assert "address_private" in codes(run, name)

    run = grid.play("doctor", machine=name, port=4443)
    assert run.returncode != 0
    assert codes(run, provider, "port") == {"port_closed"}

    grid.play("power", "-e", f"machines={name} state=stopped force=true").succeeded()
    assert codes(grid.play("doctor", machine=name, port=22), name) == {"machine_not_running"}
