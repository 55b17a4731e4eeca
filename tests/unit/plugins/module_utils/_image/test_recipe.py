# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Recipes are checked before anything is built, and become commands without a shell."""

from __future__ import annotations

import pytest
import yaml
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._image.build import recipe

MIB = 2**20
SMALL = {"suite": "bookworm", "size": "1 GiB", "packages": ["linux-image-cloud-amd64"]}
FILE = {"path": "/etc/motd", "content": "hello\n"}


def code_of(**changes):
    with pytest.raises(GridError) as caught:
        recipe.parse_recipe({**SMALL, **changes})
    assert str(caught.value).isprintable()
    return caught.value.code


def test_defaults():
    parsed = recipe.parse_recipe(SMALL)
    assert set(parsed) == set(recipe.FIELDS)
    assert (parsed["size"], parsed["variant"], parsed["initramfs"], parsed["files"]) == (
        2**30,
        "minbase",
        "distribution",
        [],
    )


def test_sizes_are_whole_mib():
    assert recipe.parse_recipe({**SMALL, "size": 40 * MIB + 1})["size"] == 41 * MIB


def test_modes_and_commands():
    parsed = recipe.parse_recipe(
        {**SMALL, "files": [{**FILE, "mode": "0755"}, FILE], "commands": [["sh", "-c", "echo 'x; y'"]]}
    )
    assert [entry["mode"] for entry in parsed["files"]] == [0o755, 0o644]
    assert parsed["commands"] == [["sh", "-c", "echo 'x; y'"]]


@pytest.mark.parametrize("field", ["suite", "size", "packages"])
def test_what_must_be_given(field):
    assert code_of(**{field: None}) == "invalid_recipe"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"suit": "x"}, "invalid_recipe"),
        ({"suite": "--verbose"}, "invalid_suite"),
        ({"suite": "../x"}, "invalid_suite"),
        ({"variant": "tiny"}, "invalid_recipe"),
        ({"variant": ["minbase"]}, "invalid_recipe"),
        ({"size": "1 MiB"}, "invalid_size"),
        ({"size": "-1 GiB"}, "invalid_size"),
        ({"size": "3 TiB"}, "invalid_size"),
        ({"size": "lots"}, "invalid_size"),
        ({"packages": "nano"}, "invalid_recipe"),
        ({"packages": ["nano,vim"]}, "invalid_package"),
        ({"packages": ["-o"]}, "invalid_package"),
        ({"packages": ["nano; reboot"]}, "invalid_package"),
        ({"packages": ["x"] * 2001}, "invalid_recipe"),
        ({"mirrors": ["ftp://198.18.0.1"]}, "invalid_mirror"),
        ({"mirrors": ["--setup-hook=reboot"]}, "invalid_mirror"),
        ({"components": ["a b"]}, "invalid_module"),
        ({"keep": ["etc"]}, "invalid_path"),
        ({"keep": ["/etc/../x"]}, "invalid_path"),
        ({"keep": [1]}, "invalid_path"),
        ({"files": [{"path": "/etc/motd"}]}, "invalid_recipe"),
        ({"files": [{**FILE, "owner": "x"}]}, "invalid_recipe"),
        ({"files": ["/etc/motd"]}, "invalid_recipe"),
        ({"files": [{**FILE, "path": "../etc/motd"}]}, "invalid_path"),
        ({"files": [{**FILE, "path": "/etc/../../motd"}]}, "invalid_path"),
        ({"files": [{**FILE, "path": "/run/x"}]}, "invalid_path"),
        ({"files": [{**FILE, "path": "/var/run/x"}]}, "invalid_path"),
        ({"files": [{**FILE, "path": "/proc"}]}, "invalid_path"),
        ({"files": [{**FILE, "content": "x" * (MIB + 1)}]}, "invalid_recipe"),
        ({"files": [{**FILE, "content": ["x"]}]}, "invalid_recipe"),
        ({"files": [{**FILE, "mode": "rwx"}]}, "invalid_recipe"),
        ({"files": [{**FILE, "mode": "0999"}]}, "invalid_recipe"),
        ({"commands": ["reboot"]}, "invalid_recipe"),
        ({"commands": [[]]}, "invalid_recipe"),
        ({"commands": [["-c", "x"]]}, "invalid_recipe"),
        ({"commands": [["sh", 5]]}, "invalid_recipe"),
        ({"commands": [["sh\0"]]}, "invalid_recipe"),
        ({"initramfs": "none"}, "invalid_recipe"),
        ({"modules": ["../x"]}, "invalid_module"),
        ({"cmdline": "quiet\n  APPEND x"}, "invalid_cmdline"),
        ({"cmdline": "x" * 501}, "invalid_cmdline"),
    ],
)
def test_refused(changes, code):
    assert code_of(**changes) == code


def test_a_mode_that_yaml_read_as_a_number():
    entry = yaml.safe_load("{path: /etc/motd, content: x, mode: 0644}")
    assert entry["mode"] == 420
    assert code_of(files=[entry]) == "invalid_recipe"


@pytest.mark.parametrize(
    ("path", "stays"),
    [
        ("/bin/busybox", True),
        ("/bin/busybox2", False),
        ("/lib64", True),
        ("/lib64/ld.so", True),
        ("/lib64/a/b", True),
        ("/lib6", False),
        ("/lib/modules/6.1/kernel/fs/isofs/isofs.ko", True),
        ("/lib/modules/6.1/x/kernel/fs/isofs", False),
        ("/usr/share/doc/x/copyright", True),
        ("/usr/share/doc/x/y/copyright", True),
        ("/usr/share/doc/x/y/copyright.gz", False),
        ("/", False),
        ("/x\n/bin/busybox", False),
    ],
)
def test_kept(path, stays):
    patterns = ["/bin/busybox", "/lib64", "/lib/modules/*/kernel/fs/isofs", "/usr/share/doc/**/copyright"]
    assert recipe.kept(path, patterns) is stays


def test_bootstrap_argv():
    argv = recipe.bootstrap_argv(
        recipe.parse_recipe({**SMALL, "mirrors": ["http://198.18.0.1/debian"], "packages": ["nano", "less"]}),
        "/work/tree",
    )
    assert argv[0] == "mmdebstrap"
    assert "--include=nano,less" in argv and "--variant=minbase" in argv
    assert argv[argv.index("--") :] == ["--", "bookworm", "/work/tree", "http://198.18.0.1/debian"]


def test_the_catalogue_that_ships():
    import pathlib

    path = pathlib.Path(__file__).parents[5] / "roles/order/defaults/main/catalogue.yml"
    catalogue = yaml.safe_load(path.read_text(encoding="utf-8"))["virtuoso_catalogue"]
    assert {"tiny", "debian-12"} <= set(catalogue)
    for entry in catalogue.values():
        source = dict(entry["source"])
        assert source.pop("type") == "packages"
        assert recipe.parse_recipe(source)["packages"]
