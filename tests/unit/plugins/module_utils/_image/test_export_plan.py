# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Exports of layers: what is asked for, which port, what is there, and how the programs are confined."""

from __future__ import annotations

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._image.paging import plan
from ansible_collections.virtuoso.grid.plugins.module_utils._sockets import Socket, parse_ports, parse_sockets

DIGEST = "sha256:" + "a" * 64
PORTS = range(10809, 10873)
SOURCE = plan.Export(DIGEST)
PAGER = plan.Export(DIGEST, "198.18.0.11:10811", 2**20)
UPSTREAM = {"host": "198.18.0.11", "port": 10811, "virtual_size": 2**20}


def test_an_export_is_a_source_or_a_pager():
    assert plan.parse_export({"digest": DIGEST}) == SOURCE
    assert plan.parse_export({"digest": DIGEST, "upstream": {**UPSTREAM, "kind": "source"}}) == PAGER


@pytest.mark.parametrize(
    "entry, code",
    [
        (None, "invalid_export"),
        ({"digest": "sha256:x"}, "invalid_digest"),
        ({"digest": DIGEST, "file": "/etc/shadow"}, "invalid_export"),
        ({"digest": DIGEST, "upstream": "h:1"}, "invalid_export"),
        ({"digest": DIGEST, "upstream": {**UPSTREAM, "host": "h,export=x"}}, "invalid_export"),
        ({"digest": DIGEST, "upstream": {**UPSTREAM, "port": 65536}}, "invalid_export"),
        ({"digest": DIGEST, "upstream": {**UPSTREAM, "virtual_size": 2**60}}, "invalid_export"),
        ({"digest": DIGEST, "upstream": {**UPSTREAM, "virtual_size": 100}}, "invalid_export"),
        ({"digest": DIGEST, "upstream": UPSTREAM, "ahead": "h"}, "invalid_export"),
        ({"digest": DIGEST, "upstream": UPSTREAM, "ahead": {"host": "h", "command": "x"}}, "invalid_export"),
        ({"digest": DIGEST, "upstream": UPSTREAM, "ahead": {"host": "h", "port": 0}}, "invalid_source"),
        ({"digest": DIGEST, "upstream": UPSTREAM, "ahead": {"host": "-oProxyCommand=x"}}, "invalid_source"),
    ],
)
def test_what_is_no_export(entry, code):
    with pytest.raises(GridError) as caught:
        plan.parse_export(entry)
    assert caught.value.code == code


@pytest.mark.parametrize("text", ["", "10809", "10-20", "10900-10800", "1-99999", "a-b"])
def test_what_is_no_range_of_ports(text):
    with pytest.raises(GridError) as caught:
        parse_ports(text)
    assert caught.value.code == "invalid_ports"


def test_a_layer_has_the_same_port_whenever_it_is_free():
    assert parse_ports("10809-10872") == PORTS
    first = plan.choose_port(SOURCE, PORTS, set())
    assert first == plan.choose_port(SOURCE, PORTS, {first + 1}) != plan.choose_port(SOURCE, PORTS, {first})
    assert plan.choose_port(PAGER, PORTS, set()) != first
    with pytest.raises(GridError) as caught:
        plan.choose_port(SOURCE, PORTS, set(PORTS))
    assert caught.value.code == "no_port"


def test_what_is_done_to_have_an_export():
    def unit(**changes):
        return plan.Unit(
            **{"kind": "pager", "digest": DIGEST, "active": True, "port": 10811, "upstream": PAGER.upstream, **changes}
        )

    assert plan.decide(PAGER, None, False) == ["export"]
    assert plan.decide(PAGER, unit(), True) == []
    assert plan.decide(PAGER, unit(), False) == plan.decide(PAGER, unit(active=False), True) == ["export"]
    assert plan.decide(PAGER, unit(upstream="198.18.0.12:10811"), True) == ["replace"]


def test_units_as_systemd_tells_of_them():
    text = "\n\n".join(
        [
            f"Id={SOURCE.unit}\nActiveState=active\nEnvironment=VIRTUOSO_PORT=10811",
            f"Id={PAGER.unit}\nActiveState=failed\nEnvironment=VIRTUOSO_PORT=10812 VIRTUOSO_UPSTREAM=h:1",
            "Id=virtuoso-export-other.service\nActiveState=active\nEnvironment=",
            f"Id={plan.unit_name('pager', 'sha256:' + 'b' * 64)}\nActiveState=inactive\nEnvironment=",
        ]
    )
    assert plan.parse_units(text) == {
        SOURCE.unit: plan.Unit("source", DIGEST, True, 10811, None),
        PAGER.unit: plan.Unit("pager", DIGEST, False, 10812, "h:1"),
    }


def test_sockets_as_the_kernel_tells_of_them():
    head = "  sl  local_address rem_address   st\n"
    four = (
        head
        + "   0: 00000000:2A3B 00000000:0000 0A\n   1: 0100007F:2A3B 0100007F:9999 01\n"
        + "   2: 0100007F:9999 0100007F:2A3B 01\n"
    )
    six = head + "   0: 00000000000000000000000000000000:2A3B 0:0 01\n   1: 0:2A3C 0:0 06\n"
    found = parse_sockets(four, six)
    assert found[0x2A3B] == Socket(True, 2) and found[0x9999] == Socket(False, 1) and 0x2A3C not in found


@pytest.mark.parametrize("export", [SOURCE, PAGER])
def test_programs_are_confined_and_ask_for_certificates(export):
    argv = plan.run_argv(export, 10811, "/etc/pki/qemu", "/depot/layer.qcow2", "/depot/.paging/a/cache.qcow2")
    for setting in (
        "DynamicUser=yes",
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        "CapabilityBoundingSet=",
        "PrivateDevices=yes",
    ):
        assert f"--property={setting}" in argv
    assert argv[argv.index("-c") + 2] == "10811" and "TCP_NODELAY" in argv[argv.index("-c") + 1]
    assert any("endpoint=server,verify-peer=yes" in word for word in argv)
    assert any("key" in word for word in argv) and not any("PRIVATE" in word for word in argv)
    # Where a host has no parameters for Diffie-Hellman the export begins nevertheless, and those that it has are its
    # user's as the rest.
    optional = [place for place, word in enumerate(argv) if word.startswith("--property=ExecStartPre=-+")]
    assert [argv[place].rpartition(" ")[2] for place in optional] == ["/etc/pki/qemu/dh-params.pem"]
    assert optional[0] < next(place for place, word in enumerate(argv) if "chown -R" in word)
    if export is SOURCE:
        assert (
            "--read-only" in argv
            and argv[-1] == "/depot/layer.qcow2"
            and not any("ReadWritePaths" in word for word in argv)
        )
    else:
        assert (
            any(word.endswith("writable=off") for word in argv) and "--property=ReadWritePaths=/depot/.paging/a" in argv
        )
        assert any("server.host=198.18.0.11,server.port=10811" in word and "tls-creds=client" in word for word in argv)
