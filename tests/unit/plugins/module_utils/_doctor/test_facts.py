# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is gathered, from the host that the tests run on and from texts."""

from __future__ import annotations

import datetime
import socket
import time

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._doctor.facts import controller, host, machine, ports
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError


@pytest.fixture
def port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def test_a_port_that_listens_is_open_and_one_that_does_not_is_refused(port):
    assert ports.attempt("127.0.0.1", port) == {"result": "open", "error": None}
    assert ports.attempt("127.0.0.1", free_port())["result"] == "refused"


@pytest.mark.parametrize("name", ["no.such.name.invalid", "x" * 300])
def test_a_name_that_is_none_is_no_crash(name):
    assert ports.attempt(name, 22)["result"] in ("unresolved", "other")


def test_a_silent_host_ends_in_time(monkeypatch):
    def silent(*dummy, timeout):
        raise socket.timeout

    monkeypatch.setattr(socket, "create_connection", silent)
    assert ports.attempt("192.0.2.1", 22)["result"] == "timeout"


def test_hosts_hear_each_other_and_a_service_that_listens_is_left_alone(port):
    ours = free_port()
    peers = [{"name": "other", "address": "127.0.0.1", "ports": [ours, port]}]
    begin = time.monotonic()
    found = ports.probe(peers, [ours, port], 0.3)
    assert time.monotonic() - begin < 3
    assert found["listening"] == {str(ours): True, str(port): True}
    assert {each["result"] for each in found["attempts"]["other"].values()} == {"open"}
    assert found["begin"] < found["end"]
    assert ports.attempt("127.0.0.1", ours)["result"] == "refused"


def test_it_tries_again_while_the_other_does_not_listen_yet():
    late = free_port()
    peers = [{"name": "other", "address": "127.0.0.1", "ports": [late]}]
    begin = time.monotonic()
    assert ports.probe(peers, [], 1.0)["attempts"]["other"][str(late)]["result"] == "refused"
    assert time.monotonic() - begin >= 1.0


def test_without_peers_nothing_listens():
    begin = time.monotonic()
    assert ports.probe([], [free_port()], 5)["listening"] == {}
    assert time.monotonic() - begin < 1


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12"\n',
            {"id": "debian", "like": [], "version": "12", "name": "Debian GNU/Linux 12"},
        ),
        ("ID=linuxmint\nID_LIKE='ubuntu debian'\n# x\n", {"like": ["ubuntu", "debian"], "name": "linuxmint"}),
        ("", {"id": "", "version": "", "name": "an unknown system"}),
    ],
)
def test_os_release(text, found):
    assert found.items() <= host.parse_os_release(text).items()


def test_security_drivers():
    models = "".join(f"<secmodel><model>{name}</model></secmodel>" for name in ("apparmor", "dac"))
    assert host.security_drivers(f"<capabilities><host>{models}</host></capabilities>") == ["apparmor", "dac"]


def test_a_libvirt_that_hangs_is_left_behind(monkeypatch):
    monkeypatch.setattr(host, "library", object())
    monkeypatch.setattr(host, "_ask", lambda uri, answer: time.sleep(2))
    begin = time.monotonic()
    assert host.ask_libvirt("qemu:///system", 0.1)["hangs"]
    assert time.monotonic() - begin < 1


def test_a_late_answer_changes_nothing(monkeypatch):
    def ask(uri, answer):
        time.sleep(0.2)
        answer["answers"] = True

    monkeypatch.setattr(host, "library", object())
    monkeypatch.setattr(host, "_ask", ask)
    answer = host.ask_libvirt("qemu:///system", 0.05)
    time.sleep(0.3)
    assert answer["answers"] is False


def test_facts_need_nothing_of_the_host(tmp_path):
    found = host.gather(None, str(tmp_path / "not" / "there"), [], 0.1)
    assert found["depot"]["present"] is False
    assert found["depot"]["size"] > 0
    assert found["clock"]["begin"] <= found["clock"]["end"]
    assert found["libvirt"]["answers"] is False


@pytest.fixture
def pem(tmp_path):
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "authority")])
    begin = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + datetime.timedelta(days=10))
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "ca-cert.pem"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return path


def test_a_certificates_dates(pem):
    found = host.read_certificate(str(pem))
    assert (found["present"], found["error"], len(found["digest"])) == (True, None, 64)
    assert found["not_before"] == 1767225600
    assert found["not_after"] - found["not_before"] == 10 * 86400


def test_certificates_that_are_none(tmp_path):
    path = tmp_path / "cert.pem"
    assert host.read_certificate(str(path))["present"] is False
    path.write_text("no PEM")
    assert host.read_certificate(str(path))["error"]


def test_a_controller_without_a_store(tmp_path, pem):
    (tmp_path / "pki").mkdir()
    pem.rename(tmp_path / "pki" / "ca-cert.pem")
    tmp_path.chmod(0o750)
    found = controller.gather("2.19.1", str(tmp_path / "grid.db"), str(tmp_path))
    assert (found["store_code"], found["state_mode"], found["state_owned"]) == ("store_missing", 0o750, True)
    assert found["authority"]["digest"]
    assert not (tmp_path / "grid.db").exists()


def test_a_store_that_is_none(tmp_path):
    (tmp_path / "grid.db").write_text("no store, and longer than a header of a database would be" * 100)
    found = controller.gather("2.19.1", str(tmp_path / "grid.db"), str(tmp_path / "none"))
    assert found["store_code"] == "store_corrupt"
    assert found["state_mode"] is None


DOMAIN = """<domain><devices>
<interface type='{kind}'><mac address='52:54:00:AA:00:01'/><source {source}/></interface>
<interface type='network'><mac address='52:54:00:aa:00:02'/><source network='other'/></interface>
</devices></domain>"""


def test_a_machines_first_card():
    assert machine.first_card(DOMAIN.format(kind="network", source="network='virtuoso'")) == machine.Card(
        "52:54:00:aa:00:01", "virtuoso", ""
    )
    assert machine.first_card("<domain><devices/></domain>") is None


@pytest.mark.parametrize(
    ("xml", "mode"),
    [
        ("<network/>", "isolated"),
        ("<network><forward/></network>", "nat"),
        ("<network><forward mode='route'/></network>", "route"),
    ],
)
def test_how_a_network_forwards(xml, mode):
    assert machine.network_mode(xml) == mode


def test_addresses_of_the_card_and_of_no_other():
    interfaces = {
        "lo": {"hwaddr": "00:00:00:00:00:00", "addrs": [{"addr": "127.0.0.1"}]},
        "eth0": {
            "hwaddr": "52:54:00:AA:00:01",
            "addrs": [{"addr": "169.254.7.7"}, {"addr": "fe80::1"}, {"addr": "fd00::7"}, {"addr": "'; drop"}, {}],
        },
        "eth1": None,
    }
    assert machine.addresses_of(interfaces, "52:54:00:aa:00:01") == ["169.254.7.7", "fd00::7"]
    assert machine.addresses_of(None, "52:54:00:aa:00:01") == []


def test_without_a_machine_addresses_are_only_tried(port):
    found = machine.check("qemu:///none", None, None, ["127.0.0.1", "127.0.0.1"], port)
    assert found["machine"] is None
    assert found["attempts"] == {"127.0.0.1": {"result": "open", "error": None}}


@pytest.mark.parametrize("number", [0, 65536, -1])
def test_a_port_that_is_none(number):
    with pytest.raises(GridError, match="no TCP port"):
        machine.check("qemu:///none", None, None, [], number)


# --- libvirt's own test driver, which needs no daemon

SAMPLE = "test:///default"


@pytest.fixture
def libvirt():
    return pytest.importorskip("libvirt")


def test_what_libvirt_answers(libvirt):
    answer = host.ask_libvirt(SAMPLE)
    assert (answer["answers"], answer["hangs"], answer["error"]) == (True, False, None)
    assert len(answer["version"]) == 3
    assert {"name": "default", "active": True, "autostart": False} in answer["networks"]


def test_a_libvirt_that_is_not_there(libvirt):
    answer = host.ask_libvirt("qemu+unix:///system?socket=/nowhere")
    assert (answer["answers"], answer["hangs"]) == (False, False)
    assert "/nowhere" in answer["error"]


def test_a_machine_and_by_whom_its_address_was_seen(libvirt, monkeypatch):
    monkeypatch.setattr(machine, "rulesets", lambda: [])
    seen = machine.look(SAMPLE, "test", "10.0.0.1", 22)
    assert (seen["present"], seen["state"], seen["mode"], seen["network"]) == (True, "running", "nat", "default")
    assert [each["source"] for each in seen["seen"]] == ["lease", "agent", "neighbour"]
    assert seen["ordered"] == "10.0.0.1"


def test_a_machine_that_is_not_there(libvirt):
    assert machine.look(SAMPLE, "no-such", None, 22)["present"] is False
