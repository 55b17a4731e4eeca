# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a transfer takes: which files are missing, the command that gets them, and what its failure means (pure)."""

from __future__ import annotations

import dataclasses
import re
import shlex
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._image.reference import (
    Manifest,
    layer_file,
    manifest_file,
    parse_manifest,
    split_reference,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._image.text import check, check_path, shorten

CONNECT_TIMEOUT = 15
SILENCE = 60
"""Seconds without a byte after which the source counts as gone."""

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?|\[?[0-9A-Fa-f:.]{2,45}(%[A-Za-z0-9.-]{1,15})?\]?", re.ASCII)


class Source(t.NamedTuple):
    """The host that has the images, as the destination reaches it."""

    name: str
    host: str
    port: int
    user: str
    identity_file: str
    known_hosts_file: str


@dataclasses.dataclass(frozen=True, eq=False)
class Item:
    """One image that is to be here."""

    name: str
    version: str
    digest: str
    size: int | None
    manifest: Manifest | None

    @property
    def layer(self) -> str:
        """The layer's path below ``images``."""
        return "layers/" + layer_file(self.digest)

    @property
    def named_by(self) -> str:
        """The manifest's path below ``images``."""
        return "manifests/" + manifest_file(self.name, self.version)


def parse_source(value: t.Mapping[str, t.Any]) -> Source:
    """Check the option ``source``. :raises GridError: ``invalid_source``, ``invalid_user``, ``invalid_path``."""
    host = value["host"]
    if not _HOST.fullmatch(host) or not 0 < value["port"] < 65536:
        raise GridError(
            "invalid_source",
            f"{shorten(host)} port {value['port']} is not an address",
            remedy="Give a host name or an IP address, and a port of 1 to 65535",
        )
    return Source(
        name=value.get("name") or host,
        host=host,
        port=value["port"],
        user=check("user", value["user"]),
        identity_file=check_path("identity_file", value["identity_file"]),
        known_hosts_file=check_path("known_hosts_file", value["known_hosts_file"]),
    )


def parse_item(entry: t.Mapping[str, t.Any]) -> Item:
    """Check one item of the option ``images``.

    :raises GridError: ``invalid_reference``, ``invalid_digest``, ``invalid_size``, ``invalid_manifest``, ``layer_changed``.
    """
    name, version = split_reference(entry.get("name"))
    digest = check("digest", entry.get("digest"))
    size = entry.get("size")
    if size is not None and (isinstance(size, bool) or not str(size).isdigit() or int(size) >= 2**63):
        raise GridError(
            "invalid_size",
            f"size {shorten(size)} is not a number of bytes",
            remedy="Give the size that the module image returned",
        )
    manifest = None
    if entry.get("manifest") is not None:
        manifest = parse_manifest(entry["manifest"], manifest_file(name, version))
        expect(manifest, digest)
    return Item(name, version, digest, None if size is None else int(size), manifest)


def expect(manifest: Manifest, digest: str) -> None:
    """:raises GridError: ``layer_changed`` where the manifest names another topmost layer than the one asked for."""
    if manifest["layers"][-1] != digest:
        raise GridError(
            "layer_changed",
            f"the source's {manifest['name']}@{manifest['version']} is now {manifest['layers'][-1]}, not {digest}",
            remedy="Run the module image on the source again, then this with what it returns",
        )


def decide(has_layer: bool, manifest: Manifest | None, digest: str) -> list[str]:
    """What is to be done for an image: nothing, ``transfer``, or ``name`` where only the manifest is missing."""
    if not has_layer:
        return ["transfer"]
    return [] if manifest is not None and manifest["layers"][-1] == digest else ["name"]


def ssh_command(source: Source) -> str:
    """The remote shell for rsync's ``-e``, which splits it at spaces outside quotes.

    The host's own configuration of ssh has no say in it.
    """
    options = {
        "BatchMode": "yes",
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": source.known_hosts_file,
        "GlobalKnownHostsFile": "/dev/null",
        "UpdateHostKeys": "no",
        "IdentitiesOnly": "yes",
        "ClearAllForwardings": "yes",
        "ForwardAgent": "no",
        "PermitLocalCommand": "no",
        "ControlPath": "none",
        "ConnectTimeout": str(CONNECT_TIMEOUT),
        "ServerAliveInterval": "15",
        "ServerAliveCountMax": "4",
    }
    words = ["ssh", "-F", "/dev/null", "-T", "-x", "-i", source.identity_file, "-p", str(source.port), "-l", source.user]
    for key, value in options.items():
        words += ["-o", f"{key}={value}"]
    return shlex.join(words)


def rsync_argv(source: Source, incoming: str, log: str) -> list[str]:
    """The command that gets the files listed on its standard input, paths below the source's ``images``, into ``incoming``.

    A file that is there in part is gone on with; its beginning is compared by checksum. What came is told in the file ``log``.
    """
    host = f"[{source.host.strip('[]')}]" if ":" in source.host else source.host
    return [
        "rsync",
        "--files-from=-",
        "--append-verify",
        f"--timeout={SILENCE}",
        f"--log-file={log}",
        "--log-file-format=%b %n",
        "--chmod=F600,D700",
        f"--rsh={ssh_command(source)}",
        "--",
        f"{host}:",
        incoming + "/",
    ]


def received(log: str) -> dict[str, int]:
    """Bytes that came for each file, from rsync's log."""
    return {
        match.group(2): int(match.group(1))
        for match in re.finditer(r"\] (\d+) ((?:layers|manifests)/[^/\s]+)$", log, re.MULTILINE)
    }


def missing_files(stderr: str) -> set[str]:
    """Which of the files the source does not have, from what rsync said."""
    return {
        match.group(1)
        for match in re.finditer(r'"(?:[^"\n]*/)?((?:layers|manifests)/[^"/\n]+)"(?: \([^)\n]*\))? failed: No such file', stderr)
    }


# rsync(1), EXIT VALUES
_ENDED = {
    5: "{} refused to start",
    10: "the connection to {} failed",
    12: "the connection to {} was lost",
    30: "{} sent nothing for too long",
    35: "{} took too long to answer",
    255: "{} could not be reached",
}
_REFUSED = ("Permission denied (", "Too many authentication failures")
_UNTRUSTED = ("Host key verification failed", "No matching host key", "REMOTE HOST IDENTIFICATION HAS CHANGED")


def blame(source: Source, rc: int, stderr: str) -> GridError:
    """The error that an exit code of rsync other than 0, 23 and 24 stands for."""
    said = [line for line in stderr.splitlines() if line.strip() and not line.startswith("Warning:")]
    # What comes first is the cause; rsync's own last line only counts the wreckage
    first = said[0][:300] if said else "it said nothing"
    setup = "Run the playbook virtuoso.grid.setup on both hosts, which exchanges their keys"
    if any(text in stderr for text in _UNTRUSTED):
        code, why, remedy = "source_untrusted", f"the key of {source.name} is not the one that is known here", setup
    elif any(text in stderr for text in _REFUSED):
        code, why, remedy = "source_refused", f"{source.name} did not let us in as {source.user}", setup
    elif rc in _ENDED:
        code, why = "source_unreachable", f"{_ENDED[rc].format(source.name)}: {first}"
        remedy = f"See that this host reaches {source.host} port {source.port}; run the same again to go on where it ended"
    else:
        code, why, remedy = (
            "transfer_failed",
            f"rsync from {source.name} ended with code {rc}: {first}",
            "Run the same again to go on where it ended",
        )
    return GridError(code, why, remedy=remedy, tried=f"rsync from {source.host}", rc=rc, stderr=stderr[-2000:])
