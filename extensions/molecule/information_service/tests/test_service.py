# SPDX-License-Identifier: GPL-3.0-or-later
"""The server as the role left it, and what two controllers wrote to it."""

from __future__ import annotations

import socket

import psycopg
import pytest

testinfra_hosts = ["ssh://home1"]


@pytest.fixture(scope="module")
def password(build):
    return (build / "state" / "store_password").read_text(encoding="utf-8").strip()


@pytest.fixture(scope="module")
def address(connect):
    return connect("home1").check_output("hostname -I").split()[0]


def test_server_runs_and_comes_back(host):
    service = host.service("postgresql")
    assert service.is_running and service.is_enabled
    assert host.socket("tcp://0.0.0.0:5432").is_listening


def test_both_controllers_orders_are_there(host, address, password):
    with psycopg.connect(
        host=address, dbname="virtuoso", user="virtuoso", password=password, sslmode="require"
    ) as store:
        names = {name for (name,) in store.execute("SELECT name FROM host WHERE kind = 'machine'")}
        owners = dict(store.execute("SELECT owner, count(*) FROM orders GROUP BY owner").fetchall())
    assert names == {f"mol-{owner}-{number}" for owner in ("alice", "bob") for number in range(1, 11)}
    assert owners == {"alice": 10, "bob": 10}


@pytest.mark.parametrize(
    "wrong", [{"password": "guess"}, {"user": "postgres", "password": "postgres"}, {"sslmode": "disable"}]
)
def test_nobody_else_is_admitted(host, address, password, wrong):
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(
            **{
                "host": address,
                "dbname": "virtuoso",
                "user": "virtuoso",
                "password": password,
                "sslmode": "require",
                **wrong,
            }
        )


def test_the_password_is_in_no_log_and_in_no_file_of_others(host, password, build):
    assert len(password) == 32
    assert host.run(f"grep -rlF {password} /var/log /etc/postgresql /root /tmp").stdout == ""
    assert password not in host.check_output("journalctl --boot --no-pager")
    assert (build / "state" / "store_password").stat().st_mode & 0o077 == 0


def test_the_owner_owns_only_his_database(host):
    query = "SELECT rolsuper, rolcreatedb, rolcreaterole FROM pg_roles WHERE rolname = current_user"
    told = host.check_output(
        f'cd / && su postgres -c \'psql -XAt -d virtuoso -c "SET ROLE virtuoso" -c "{query}"\''
    ).split()[-1]
    assert told == "f|f|f"


def test_the_port_answers_from_the_clients_network(address):
    with socket.create_connection((address, 5432), timeout=5):
        pass
