# SPDX-License-Identifier: GPL-3.0-or-later
"""The ports between the grid's hosts: open to them, closed to everybody else."""

from __future__ import annotations

import json

import pytest

testinfra_hosts = ["ssh://mol-bookworm", "ssh://mol-trixie"]

ADDRESSES = {"mol-bookworm": "198.18.0.41", "mol-trixie": "198.18.0.42"}
CONNECT = "python3 -c 'import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 5).close()'"
LIBVIRT_TLS, MIGRATION, IMAGES, NBD = 16514, 49152, 10808, 10809


@pytest.fixture
def listening(host, request):
    """Something that would answer on the port, if it were let through."""
    unit = f"mol-listener-{request.param}"
    host.check_output(f"systemd-run --collect --unit={unit} python3 -m http.server {request.param}")
    host.check_output(f"for i in $(seq 50); do {CONNECT} 127.0.0.1 {request.param} && exit 0; sleep 0.1; done; exit 1")
    yield request.param
    host.check_output(f"systemctl stop {unit}")


def test_rules_are_loaded_now_and_at_every_boot(host):
    service = host.service("virtuoso-firewall")
    assert service.is_running
    assert service.is_enabled
    host.check_output("systemctl restart virtuoso-firewall")
    host.check_output("nft list table inet virtuoso")


def test_peers_are_the_hosts_of_the_grid(host):
    listed = json.loads(host.check_output("nft -j list set inet virtuoso peers"))
    (peers,) = (entry["set"]["elem"] for entry in listed["nftables"] if "set" in entry)
    assert sorted(peers) == sorted(ADDRESSES.values())


@pytest.mark.parametrize("listening", [LIBVIRT_TLS, MIGRATION, NBD], indirect=True)
def test_port_is_open_to_a_peer_and_closed_to_a_stranger(host, connect, listening):
    name = host.backend.get_hostname()
    address = ADDRESSES[name]
    (peer,) = ADDRESSES.keys() - {name}
    assert connect(peer).run(f"{CONNECT} {address} {listening}").rc == 0
    refused = connect("home1").run(f"{CONNECT} {address} {listening}")
    assert refused.rc != 0
    assert "ConnectionRefusedError" in refused.stderr


def test_the_port_of_images_is_open_to_a_peer_and_closed_to_a_stranger(host, connect):
    name = host.backend.get_hostname()
    (peer,) = ADDRESSES.keys() - {name}
    assert host.service("virtuoso-images.socket").is_running and host.service("virtuoso-images.socket").is_enabled
    assert connect(peer).run(f"{CONNECT} {ADDRESSES[name]} {IMAGES}").rc == 0
    refused = connect("home1").run(f"{CONNECT} {ADDRESSES[name]} {IMAGES}")
    assert refused.rc != 0 and "ConnectionRefusedError" in refused.stderr


@pytest.mark.parametrize("listening", [8080], indirect=True)
def test_other_ports_are_left_alone(host, connect, listening):
    assert connect("home1").run(f"{CONNECT} {ADDRESSES[host.backend.get_hostname()]} {listening}").rc == 0
