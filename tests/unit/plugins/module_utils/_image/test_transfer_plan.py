# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a transfer asks for, and what its end means."""

from __future__ import annotations

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._image import transfer_plan as plan

from .test_reference import DIGEST, manifest

SOURCE = {
    "host": "198.18.0.11",
    "port": 22,
    "user": "virtuoso",
    "identity_file": "/etc/virtuoso/key",
    "known_hosts_file": "/etc/virtuoso/known_hosts",
    "name": "home1",
}
ITEM = {"name": "tiny@1", "digest": DIGEST, "size": 5}
LAYER = "layers/" + DIGEST.replace(":", "-") + ".qcow2"


def code_of(function, value):
    with pytest.raises(GridError) as caught:
        function(value)
    assert str(caught.value).isprintable()
    return caught.value.code


@pytest.mark.parametrize("host", ["home1", "home1.example.net", "198.18.0.11", "2001:db8::1", "[2001:db8::1]", "fe80::1%eth0"])
def test_hosts(host):
    argv = plan.rsync_argv(plan.parse_source({**SOURCE, "host": host}), "/d", "/log")
    assert argv[-2:] == [f"[{host.strip('[]')}]:" if ":" in host else f"{host}:", "/d/"]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"host": "-oProxyCommand=x"}, "invalid_source"),
        ({"host": "a b"}, "invalid_source"),
        ({"host": "a;b"}, "invalid_source"),
        ({"host": ""}, "invalid_source"),
        ({"host": "a\nb"}, "invalid_source"),
        ({"host": "x" * 300}, "invalid_source"),
        ({"port": 0}, "invalid_source"),
        ({"port": 65536}, "invalid_source"),
        ({"user": "-l"}, "invalid_user"),
        ({"user": "a b"}, "invalid_user"),
        ({"identity_file": "x"}, "invalid_path"),
        ({"known_hosts_file": "/a/../b"}, "invalid_path"),
    ],
)
def test_hostile_sources(changes, code):
    assert code_of(plan.parse_source, {**SOURCE, **changes}) == code


def test_the_command():
    argv = plan.rsync_argv(plan.parse_source({**SOURCE, "identity_file": "/etc/my keys/x"}), "/depot/incoming.part", "/log")
    assert argv[argv.index("--") :] == ["--", "198.18.0.11:", "/depot/incoming.part/"]
    shell = next(word for word in argv if word.startswith("--rsh="))
    for option in (
        "BatchMode=yes",
        "StrictHostKeyChecking=yes",
        "ClearAllForwardings=yes",
        "ForwardAgent=no",
        "-F /dev/null",
        "-i '/etc/my keys/x'",
        "ConnectTimeout=15",
    ):
        assert option in shell


def test_items():
    item = plan.parse_item({**ITEM, "manifest": manifest(layers=[DIGEST])})
    assert (item.layer, item.named_by, item.size) == (LAYER, "manifests/tiny@1.json", 5)
    assert plan.parse_item({"name": "tiny@1", "digest": DIGEST}).size is None


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"name": "tiny"}, "invalid_reference"),
        ({"name": "../x@1"}, "invalid_reference"),
        ({"digest": None}, "invalid_digest"),
        ({"digest": "sha256:../../etc/passwd"}, "invalid_digest"),
        ({"size": -1}, "invalid_size"),
        ({"size": "1 GiB"}, "invalid_size"),
        ({"size": 2**64}, "invalid_size"),
        ({"size": True}, "invalid_size"),
        ({"manifest": {"layers": ["/etc/passwd"]}}, "invalid_manifest"),
        ({"manifest": manifest(name="other")}, "invalid_manifest"),
        ({"manifest": manifest(layers=["sha256:" + "1" * 64])}, "layer_changed"),
    ],
)
def test_hostile_items(changes, code):
    assert code_of(plan.parse_item, {**ITEM, **changes}) == code


@pytest.mark.parametrize(
    ("has_layer", "found", "actions"),
    [
        (False, None, ["transfer"]),
        (False, manifest(), ["transfer"]),
        (True, None, ["name"]),
        (True, manifest(), []),
        (True, manifest(layers=["sha256:" + "1" * 64]), ["name"]),
    ],
)
def test_decide(has_layer, found, actions):
    assert plan.decide(has_layer, found, DIGEST) == actions


def test_received():
    begin = "2030/01/01 00:00:00 [12] "
    log = f"{begin}receiving file list\n{begin}0 layers/\n{begin}18405100 {LAYER}\n{begin}412 manifests/tiny@1.json\n{begin}sent 5 bytes  received 9 bytes\n"
    assert plan.received(log) == {LAYER: 18405100, "manifests/tiny@1.json": 412}


@pytest.mark.parametrize(
    "line",
    [
        f'rsync: [sender] link_stat "/srv/depot/images/{LAYER}" failed: No such file or directory (2)',
        f'rsync: [sender] link_stat "/{LAYER}" (in images) failed: No such file or directory (2)',
        f'rsync: [sender] change_dir "x"\nrsync: link_stat "{LAYER}" failed: No such file or directory (2)\nrsync error: some files',
    ],
)
def test_missing_files(line):
    assert plan.missing_files(line) == {LAYER}


@pytest.mark.parametrize(
    ("rc", "stderr", "code"),
    [
        (255, "ssh: connect to host 198.18.0.11 port 22: Connection refused", "source_unreachable"),
        (255, "Warning: x\nssh: Could not resolve hostname home1: Name or service not known", "source_unreachable"),
        (255, "virtuoso@198.18.0.11: Permission denied (publickey).", "source_refused"),
        (255, "Host key verification failed.", "source_untrusted"),
        (12, "rsync: connection unexpectedly closed (0 bytes received so far) [Receiver]", "source_unreachable"),
        (30, "rsync error: timeout in data send/receive (code 30)", "source_unreachable"),
        (20, "", "transfer_failed"),
        (23, "rsync: permission denied", "transfer_failed"),
    ],
)
def test_blame(rc, stderr, code):
    error = plan.blame(plan.parse_source(SOURCE), rc, stderr)
    assert error.code == code and "home1" in error.msg and error.remedy and error.details["rc"] == rc
