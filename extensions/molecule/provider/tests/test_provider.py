# SPDX-License-Identifier: GPL-3.0-or-later
"""A host that was bare is a provider: libvirt, acceleration, network, TLS material."""

from __future__ import annotations

import os
import stat

import pytest

testinfra_hosts = ["ssh://mol-bookworm", "ssh://mol-trixie"]
ADDRESSES = {"mol-bookworm": "198.18.0.41", "mol-trixie": "198.18.0.42"}

CERTIFICATES = {
    "/etc/pki/libvirt/servercert.pem": "/etc/pki/libvirt/private/serverkey.pem",
    "/etc/pki/libvirt/clientcert.pem": "/etc/pki/libvirt/private/clientkey.pem",
    "/etc/pki/qemu/server-cert.pem": "/etc/pki/qemu/server-key.pem",
    "/etc/pki/qemu/client-cert.pem": "/etc/pki/qemu/client-key.pem",
}
AUTHORITIES = ("/etc/pki/CA/cacert.pem", "/etc/pki/qemu/ca-cert.pem")


@pytest.mark.parametrize(
    "name",
    [
        "libvirt-daemon-system",
        "qemu-system-x86",
        "qemu-utils",
        "python3-libvirt",
        "python3-pycdlib",
        "dnsmasq-base",
        "nftables",
        "zstd",
    ],
)
def test_package_is_installed(host, name):
    assert host.package(name).is_installed


def test_only_the_image_server_can_build_images(host):
    builds = host.backend.get_hostname() == "mol-bookworm"
    assert host.package("mmdebstrap").is_installed is builds


def test_libvirt_runs_now_and_after_a_boot(host):
    service = host.service("libvirtd")
    assert service.is_running
    assert service.is_enabled
    assert host.check_output("virsh --connect qemu:///system version --daemon")


def test_libvirt_does_not_listen_on_the_network(host):
    assert not host.socket("tcp://16514").is_listening


def test_acceleration_is_what_was_probed(host):
    """Hosts of the lab have no KVM: machines are emulated, and a useless /dev/kvm is hidden from libvirt."""
    assert host.file("/etc/virtuoso/virtualization").content_string == "qemu\n"
    drop_in = host.file("/etc/systemd/system/libvirtd.service.d/50-virtuoso.conf")
    assert "\nInaccessiblePaths=-/dev/kvm\n" in drop_in.content_string
    assert host.check_output("systemctl show libvirtd --property=InaccessiblePaths --value") == "-/dev/kvm"


def test_network_for_machines_is_up_now_and_after_a_boot(host):
    lines = host.check_output("virsh --connect qemu:///system net-info virtuoso").splitlines()
    told = {key.strip(): value.strip() for key, value in (line.split(":", 1) for line in lines if ":" in line)}
    assert (told["Active"], told["Autostart"], told["Persistent"], told["Bridge"]) == ("yes", "yes", "yes", "virtuoso0")
    assert "192.168.140.1" in host.interface("virtuoso0").addresses


@pytest.mark.parametrize("certificate", CERTIFICATES)
def test_certificate_chains_to_the_authority_and_names_the_host(host, certificate):
    name = host.backend.get_hostname()
    for authority in AUTHORITIES:
        verify = f"openssl verify -x509_strict -CAfile {authority}"
        for wanted in (
            f"-purpose sslserver -verify_ip {ADDRESSES[name]}",
            f"-purpose sslclient -verify_hostname {name}",
        ):
            assert host.check_output(f"{verify} {wanted} {certificate}") == f"{certificate}: OK"
        assert host.run(f"{verify} -verify_hostname another {certificate}").rc != 0


@pytest.mark.parametrize(("certificate", "key"), CERTIFICATES.items())
def test_key_belongs_to_the_certificate(host, certificate, key):
    public = host.check_output(f"openssl pkey -in {key} -pubout")
    assert host.check_output(f"openssl x509 -in {certificate} -noout -pubkey") == public


@pytest.mark.parametrize(
    ("path", "group", "mode"),
    [
        ("/etc/pki/libvirt/private/serverkey.pem", "root", 0o600),
        ("/etc/pki/libvirt/private/clientkey.pem", "root", 0o600),
        ("/etc/pki/qemu/server-key.pem", "libvirt-qemu", 0o640),
        ("/etc/pki/qemu/client-key.pem", "libvirt-qemu", 0o640),
        ("/etc/virtuoso/transfer_ed25519", "root", 0o600),
    ],
)
def test_key_is_kept_from_others(host, path, group, mode):
    key = host.file(path)
    assert (key.user, key.group, key.mode) == ("root", group, mode)


@pytest.fixture
def over_tls(host):
    """libvirt listening on the network, which the role doesn't ask of it."""
    listen = "systemctl stop libvirtd && systemctl start libvirtd-tls.socket && systemctl start libvirtd"
    alone = "systemctl stop libvirtd libvirtd-tls.socket && systemctl start libvirtd"
    host.check_output(listen)
    yield f"qemu+tls://{ADDRESSES[host.backend.get_hostname()]}/system"
    host.check_output(alone)


def test_certificates_are_good_for_libvirt_over_tls(host, connect, over_tls):
    name = host.backend.get_hostname()
    (peer,) = ADDRESSES.keys() - {name}
    assert connect(peer).check_output(f"virsh --connect {over_tls} hostname") == name
    without = f"{over_tls}?pkipath=/nowhere"
    assert connect(peer).run(f"virsh --connect '{without}' hostname").rc != 0


@pytest.fixture
def export(host):
    """A disk that QEMU's own user exports over TLS."""
    creds = "tls-creds-x509,id=tls,endpoint=server,dir=/etc/pki/qemu,verify-peer=on"
    nbd = (
        f"qemu-nbd --object {creds} --tls-creds tls --persistent --read-only --export-name disk --format raw "
        f"--port 10809 /var/tmp/mol.raw"
    )
    host.check_output("truncate --size 1M /var/tmp/mol.raw && chmod 0644 /var/tmp/mol.raw")
    host.check_output(f"systemd-run --collect --unit=mol-export --property=User=libvirt-qemu {nbd}")
    host.check_output("for i in $(seq 50); do ss -Htln 'sport = 10809' | grep -q . && exit 0; sleep 0.1; done; exit 1")
    yield f"driver=nbd,host={ADDRESSES[host.backend.get_hostname()]},port=10809,export=disk"
    host.check_output("systemctl stop mol-export; rm -f /var/tmp/mol.raw")


def test_certificates_are_good_for_qemu(host, connect, export):
    (peer,) = ADDRESSES.keys() - {host.backend.get_hostname()}
    creds = "--object tls-creds-x509,id=tls,endpoint=client,dir=/etc/pki/qemu"
    told = connect(peer).check_output(
        f"runuser -u libvirt-qemu -- qemu-img info {creds} --image-opts {export},tls-creds=tls"
    )
    assert "virtual size: 1 MiB" in told
    assert connect(peer).run(f"qemu-img info --image-opts {export}").rc != 0


def test_qemu_need_not_search_for_a_prime_before_it_answers_by_tls(host):
    path = "/etc/pki/qemu/dh-params.pem"
    assert host.file(path).mode == 0o644
    assert "DH Parameters: (2048 bit)" in host.check_output(f"openssl pkeyparam -in {path} -text -noout -check")
    # It reads them: with others that are none it doesn't begin.
    spoiled = "d=$(mktemp -d) && cp /etc/pki/qemu/* $d && echo none >$d/dh-params.pem"
    creds = "--object tls-creds-x509,id=tls,endpoint=server,verify-peer=yes,dir=$d"
    run = host.run(
        f"{spoiled} && truncate --size 1M $d/disk && qemu-img info {creds} --image-opts "
        f"driver=raw,file.filename=$d/disk; c=$?; rm -rf $d; exit $c"
    )
    assert run.rc != 0 and "DH" in run.stderr


def test_authority_never_leaves_the_controller(host, build):
    key = build / "state" / "pki" / "ca-key.pem"
    assert stat.S_IMODE(os.stat(key).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(key.parent).st_mode) == 0o700
    body = key.read_text(encoding="ascii").splitlines()[1]
    assert host.run(f"grep -rqs {body} /etc /root /var/lib/virtuoso /tmp").rc == 1
