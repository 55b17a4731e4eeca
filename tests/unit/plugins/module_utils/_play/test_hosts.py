# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How hosts are reached, and what the store and other hosts have of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ansible_collections.virtuoso.grid.plugins.module_utils._play.hosts import (
    endpoints,
    portable,
    resolved,
    store_hosts,
    way_of,
)

CHECKOUT = Path(__file__).resolve().parents[5]
BARE = {"inventory_hostname": "p1"}
FULL = {"inventory_hostname": "home1", "virtuoso_address": "home.example", "virtuoso_site": "site-home"}
OPTIONS = {"host": "198.18.0.11", "port": 2222, "remote_user": "root", "ssh_common_args": "-J gate"}


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        ("", ""),
        ("-F ssh_config -C", "-F /work/ssh_config -C"),
        ("-Fssh_config", "-F /work/ssh_config"),
        ("-F none -i ~/.ssh/id -i key", "-F none -i '~/.ssh/id' -i /work/key"),
        ("-o IdentityFile=key", "-o 'IdentityFile=\"/work/key\"'"),
        ("-o 'UserKnownHostsFile=\"a b/known\"'", "-o 'UserKnownHostsFile=\"/work/a b/known\"'"),
        ("-o UserKnownHostsFile=/dev/null -oBatchMode=yes", "-o UserKnownHostsFile=/dev/null -o BatchMode=yes"),
        ("-o 'IdentityFile %d/key'", "-o IdentityFile=%d/key"),
        # What is Ansible's own stays with it.
        ("-o ControlMaster=auto -o ControlPersist=60s -oControlPath=x -S y -o Compression=yes", "-o Compression=yes"),
        ("-J gate,other -p 2222 -4", "-J gate,other -p 2222 -4"),
    ],
)
def test_arguments_can_be_used_from_anywhere(arguments, kept):
    assert portable(arguments, "/work") == kept


def test_arguments_with_open_quotes_are_an_error():
    with pytest.raises(ValueError, match="quotation"):
        portable("-o 'ProxyCommand=x", "/")


def test_what_ssh_has_found():
    assert resolved("user ops\nhostname 198.18.0.22\nport 2222\nidentityfile ~/.ssh/id\n") == ("198.18.0.22", 2222)
    assert resolved("") == ("", 0)


def test_a_host_that_says_nothing_is_reached_by_its_name():
    way = way_of(BARE, "ssh", {}, ("", 0), "/work")
    assert endpoints([way]) == {
        "p1": {"name": "p1", "address": "p1", "port": 22, "site": "p1", "depot": "/var/lib/virtuoso"}
    }


def test_an_alias_of_ssh_is_for_the_controller_and_what_it_stands_for_is_for_others():
    way = way_of({**BARE, "ansible_host": "alias"}, "smart", {"host": "alias"}, ("198.18.0.22", 2222), "/work")
    assert (way["host"], way["port"]) == ("alias", 0)
    assert endpoints([way], ["address", "port"]) == {"p1": {"address": "198.18.0.22", "port": 2222}}


def test_what_a_host_says_counts():
    way = way_of(FULL, "ssh", OPTIONS, ("198.18.0.99", 22), "/work")
    assert endpoints([way], ["address", "port", "site"]) == {
        "home1": {"address": "home.example", "port": 2222, "site": "site-home"}
    }
    (home,) = store_hosts([way], "home")
    assert home == {
        "name": "home1",
        "kind": "home",
        "site": "site-home",
        "address": "198.18.0.11",
        "port": 2222,
        "user": "root",
        "identity_file": "",
        "ssh_args": "-J gate",
        "facts": {"connection": "ssh"},
    }
    assert "facts" not in store_hosts([way], "provider")[0]


INVENTORY = """
all:
  vars: {ansible_python_interpreter: /usr/bin/python3}
  hosts:
    local1: {ansible_connection: local}
    address1:
      {ansible_host: "2001:db8::5", ansible_port: 2200, ansible_user: admin, ansible_private_key_file: ~/.ssh/key}
    alias1:
    password1: {ansible_host: 192.0.2.5, ansible_password: secret}
    quotes1: {ansible_ssh_extra_args: "-o 'ProxyCommand=x"}
"""
CONFIGURATION = """
[defaults]
remote_user = someone
private_key_file = keys/mine
[ssh_connection]
ssh_args = -F my_config -o ControlMaster=auto
ssh_common_args = -o Compression=yes
"""


def test_ansibles_own_settings_and_sshs_are_heeded(tmp_path):
    """All that Ansible and ssh know of a host, as a user sets it: in ansible.cfg, in ssh's file, by variables."""
    (tmp_path / "hosts.yml").write_text(INVENTORY, encoding="utf-8")
    (tmp_path / "ansible.cfg").write_text(CONFIGURATION, encoding="utf-8")
    (tmp_path / "my_config").write_text("Host alias1\n HostName 198.18.0.77\n Port 2222\n User ops\n", encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    environment["ANSIBLE_COLLECTIONS_PATH"] = str(CHECKOUT / "build" / "collections")
    environment["ANSIBLE_SSH_EXTRA_ARGS"] = "-J gate"

    def ways(*names):
        message = "{{ query('virtuoso.grid.way', " + ", ".join(f"'{name}'" for name in names) + ") | to_json }}"
        argv = [sys.executable, "-m", "ansible.cli.adhoc", "-i", "hosts.yml", "local1", "-m", "debug"]
        done = subprocess.run(
            [*argv, "-a", f'msg="{message}"'],
            cwd=tmp_path,
            env={**environment, "ANSIBLE_CALLBACK_RESULT_FORMAT": "yaml"},
            capture_output=True,
            text=True,
            check=False,
        )
        return done

    done = ways("local1", "address1", "alias1", "password1")
    assert done.returncode == 0, done.stdout + done.stderr
    said = yaml.safe_load(done.stdout.partition("=>")[2])["msg"]
    local, address, alias, password = said if isinstance(said, list) else yaml.safe_load(said)
    args = f"-F {tmp_path}/my_config -o Compression=yes -J gate"
    assert local["connection"] == "local" and local["address"] == "local1"
    assert (address["host"], address["port"], address["ssh_port"]) == ("2001:db8::5", 2200, 2200)
    assert (address["user"], address["identity_file"]) == ("admin", "~/.ssh/key") and address["ssh_args"] == args
    assert (alias["host"], alias["port"], alias["user"]) == ("alias1", 0, "someone")
    assert (alias["address"], alias["ssh_port"]) == ("198.18.0.77", 2222)
    assert alias["identity_file"] == f"{tmp_path}/keys/mine"
    assert password["password"] is True and not any(way["password"] for way in (local, address, alias))
    failed = ways("quotes1")
    assert failed.returncode != 0 and "quotes1" in failed.stdout + failed.stderr
    assert "Close the quotes" in failed.stdout + failed.stderr
