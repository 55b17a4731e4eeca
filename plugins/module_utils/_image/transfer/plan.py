# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans a transfer: the source and items asked for, how to compress, and the errors for what can fail (pure)."""

from __future__ import annotations

import dataclasses
import re
import shlex
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.index import BLOCK, Blocks
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.reference import (
    Manifest,
    manifest_file,
    parse_manifest,
    split_reference,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._names import check, check_path, shorten
from ansible_collections.virtuoso.grid.plugins.module_utils._pki import TLS_DIR
from ansible_collections.virtuoso.grid.plugins.module_utils._units import parse_size

CONNECT_TIMEOUT = 15

_HOST = re.compile(
    r"[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?|\[?[0-9A-Fa-f:.]{2,45}(%[A-Za-z0-9.-]{1,15})?\]?", re.ASCII
)
_KEY_NAME = re.compile(r"\[[^]\s]{1,255}\]:[0-9]{1,5}", re.ASCII)


TLS_PORT = 10808
"""The port of the socket unit that sends images."""


@dataclasses.dataclass(frozen=True)
class Source:
    """The host that has the images, and how the destination reaches it.

    ``name``: how messages name it. ``host``, ``port``, ``user``: of its SSH server. ``key_name``: the name under which
    its host key is known, where that isn't the address. ``tls_port``: 0 where it is reached by SSH only. ``tls_dir``:
    directory of this host's certificate.
    """

    name: str
    host: str
    port: int
    user: str
    identity_file: str
    known_hosts_file: str
    key_name: t.Optional[str] = None
    tls_port: int = 0
    tls_dir: str = TLS_DIR


REACHED_BY: dict[str, object] = {
    "port": 22,
    "user": "virtuoso",
    "identity_file": "/etc/virtuoso/transfer_ed25519",
    "known_hosts_file": "/etc/virtuoso/known_hosts",
    "name": None,
    "key_name": None,
    "tls_port": TLS_PORT,
    "tls_dir": TLS_DIR,
}
"""The defaults of a source's fields."""


@dataclasses.dataclass(frozen=True, eq=False)
class Item:
    """An image to transfer: its name, the digest of its topmost layer, the bytes of its files and its manifest, where
    they are known."""

    name: str
    version: str
    digest: str
    size: int | None
    manifest: Manifest | None


def parse_source(value: t.Mapping[str, object]) -> Source:
    """Check the option ``source``. :raises GridError: ``invalid_source``, ``invalid_user``, ``invalid_path``."""
    host = _address("host", value["host"])
    port = value["port"]
    if not isinstance(port, int) or not 0 < port < 65536:
        raise GridError("invalid_source", f"{port} is not a port", remedy="Give a port of 1 to 65535")
    tls_port = value.get("tls_port", TLS_PORT)
    if not str(tls_port).isdigit() or int(str(tls_port)) > 65535:
        raise GridError(
            "invalid_source", f"tls_port {shorten(tls_port)} is not a port", remedy="Give a port, or 0 for SSH alone"
        )
    return Source(
        name=str(value.get("name") or host),
        host=host,
        port=port,
        user=check("user", value["user"]),
        identity_file=check_path("identity_file", value["identity_file"]),
        known_hosts_file=check_path("known_hosts_file", value["known_hosts_file"]),
        key_name=_key_name(value["key_name"]) if value.get("key_name") else None,
        tls_port=int(str(tls_port)),
        tls_dir=check_path("tls_dir", value.get("tls_dir", TLS_DIR)),
    )


def _key_name(value: object) -> str:
    """An address, or one with a port in the form of a known_hosts file."""
    return value if isinstance(value, str) and _KEY_NAME.fullmatch(value) else _address("key_name", value)


def _address(what: str, value: object) -> str:
    if not isinstance(value, str) or not _HOST.fullmatch(value):
        raise GridError(
            "invalid_source", f"{what} {shorten(value)} is not an address", remedy="Give a host name or an IP address"
        )
    return value


def parse_item(entry: t.Mapping[str, object]) -> Item:
    """Check one entry of the option ``images``.

    :raises GridError: ``invalid_reference``, ``invalid_digest``, ``invalid_size``, ``invalid_manifest``,
        ``layer_changed``.
    """
    name, version = split_reference(entry.get("name"))
    digest = check("digest", entry.get("digest"))
    size = entry.get("size")
    if size is not None and (isinstance(size, bool) or not str(size).isdigit() or int(str(size)) >= 2**63):
        raise GridError(
            "invalid_size",
            f"size {shorten(size)} is not a number of bytes",
            remedy="Give the size that the module image returned",
        )
    manifest = None
    if entry.get("manifest") is not None:
        manifest = parse_manifest(entry["manifest"], manifest_file(name, version))
        expect(manifest, digest)
    return Item(name, version, digest, None if size is None else int(str(size)), manifest)


def expect(manifest: Manifest, digest: str) -> None:
    """Require that the manifest's topmost layer is ``digest``. :raises GridError: ``layer_changed``."""
    if manifest["layers"][-1] != digest:
        raise GridError(
            "layer_changed",
            f"the source's {manifest['name']}@{manifest['version']} is now {manifest['layers'][-1]}, not {digest}",
            remedy="Run the module image on the source again, then this with what it returns",
        )


def decide(has_layer: bool, manifest: Manifest | None, digest: str) -> list[str]:
    """The action that an image needs: none, ``transfer``, or ``name`` where only the manifest is missing."""
    if not has_layer:
        return ["transfer"]
    return [] if manifest is not None and manifest["layers"][-1] == digest else ["name"]


def ssh_argv(source: Source) -> list[str]:
    """The argument list of ssh for a connection to the source's sender; this host's configuration of ssh is ignored."""
    options = {
        "BatchMode": "yes",
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": shlex.quote(source.known_hosts_file),
        "GlobalKnownHostsFile": "/dev/null",
        "UpdateHostKeys": "no",
        "IdentitiesOnly": "yes",
        "ClearAllForwardings": "yes",
        "ForwardAgent": "no",
        "PermitLocalCommand": "no",
        "ControlPath": "none",
        # Half the work of the default cipher on processors with AES, which nearly all have; the others remain possible
        "Ciphers": "^aes128-gcm@openssh.com",
        "ConnectTimeout": str(CONNECT_TIMEOUT),
        "ServerAliveInterval": "15",
        "ServerAliveCountMax": "4",
    }
    if source.key_name:
        options["HostKeyAlias"] = source.key_name
    words = [
        "ssh",
        "-F",
        "/dev/null",
        "-T",
        "-x",
        "-i",
        source.identity_file,
        "-p",
        str(source.port),
        "-l",
        source.user,
    ]
    for key, value in options.items():
        words += ["-o", f"{key}={value}"]
    return [*words, "--", source.host.strip("[]"), "send"]


GLANCE = 8
"""Blocks that are sent first, uncompressed: enough to see whether the link is faster than any compressor."""

PROBE = 64
"""Blocks that are sent compressed next, where it isn't clear yet which is faster."""

TRY = 256
"""Blocks that are sent uncompressed where the link may be faster than the compressor, to measure that."""

STRETCH = 8192
"""Blocks after which the choice is made again: the load of the hosts changes meanwhile. The source adapts the level by
itself all the time."""

WORTH_MEASURING = 4 * PROBE
"""For fewer blocks measuring would take longer than sending."""

QUICK, MIDDLE, THOROUGH = 1, 4, 7
"""Levels of zstd to begin with: where the compressor may be the bottleneck, where the link clearly is, and where the
link is so slow that any level keeps up."""

FAST, BRISK, SLOW, CRAWL = 250e6, 100e6, 40e6, 4e6
"""Speeds of links in bytes a second. From FAST on a link is faster than the compressor; from BRISK on it may be. Up to
SLOW the compressor keeps up with it, up to CRAWL even at its highest level."""

# The compressor counts as the bottleneck where it was waited for at least this part of the time.
_WAITED = 0.5


@dataclasses.dataclass(frozen=True)
class Cap:
    """What a transfer may use at most: ``rate`` in bytes a second, ``share`` of what the link gives (0 to 1)."""

    rate: t.Optional[int] = None
    share: t.Optional[float] = None

    def limit(self, link: float | None) -> int | None:
        """The limit in bytes a second; ``None`` for no limit.

        :param link: what the link gives without a limit, in bytes a second, if that is known.
        """
        shared = None if self.share is None or link is None else max(1, int(self.share * link))
        return min((rate for rate in (self.rate, shared) if rate is not None), default=None)


_SHARE = re.compile(r"\s*([1-9][0-9]?)\s*%\s*", re.ASCII)


def parse_cap(value: str | None) -> Cap:
    """Read the option ``bandwidth``: a size a second such as ``10 MiB``, or a share such as ``40 %``.

    :raises GridError: ``invalid_size``.
    """
    found = _SHARE.fullmatch(value or "")
    if found:
        return Cap(share=int(found[1]) / 100)
    return Cap(parse_size(value, "bandwidth", minimum=1) if value else None)


class Packing(t.NamedTuple):
    """How to send the next ``blocks`` blocks: ``level`` of zstd to begin with, 0 for uncompressed, and why."""

    level: int
    blocks: int
    why: str


@dataclasses.dataclass
class Measured:
    """What was measured of the link and the compressor, in bytes a second.

    ``link``: bytes that came through the link. ``plain`` and ``packed``: bytes of the disk that they held, sent
    uncompressed and compressed. ``waits``: in the last part the compressor was the bottleneck.
    """

    link: float | None = None
    plain: float | None = None
    packed: float | None = None
    waits: bool = False

    def see(self, level: int, content: int, came: tuple[int, float], waited: float | None) -> None:
        """Record how a part came.

        :param level: the level of zstd that it was sent with.
        :param content: its bytes on the disk.
        :param came: its bytes on the link, and the seconds that they took.
        :param waited: seconds that the source waited for its compressor.
        """
        seconds = max(came[1], 1e-6)
        link = came[0] / seconds
        if level == 0:
            self.link = link
            if content >= TRY * BLOCK:
                self.plain = content / seconds
            return
        self.packed = content / seconds
        self.waits = waited is not None and waited > _WAITED * seconds
        # While the compressor is the bottleneck the link may be faster than what is measured.
        self.link = max(link, self.link or 0.0) if self.waits else link

    def packing(self, bandwidth: int | None) -> Packing:
        """Choose how to send the next blocks: in the faster way, as far as both were measured.

        :param bandwidth: the limit in bytes a second.
        """
        if self.link is None:
            return Packing(0, GLANCE, "to see whether the link is fast")
        link = self.link if bandwidth is None else min(self.link, float(bandwidth))
        takes = f"the link takes {_mib(link)}/s"
        if self.packed is None:
            if link >= FAST:
                return Packing(0, STRETCH, f"{takes}: faster without")
            if link >= BRISK and self.plain is None:
                return Packing(0, TRY, f"{takes}: to see whether more than a compressor gives")
            if link > SLOW:
                return Packing(QUICK, PROBE, f"{takes}: to see whether the compressor keeps up with it")
            return Packing(_level(link), STRETCH, f"{takes}, for which the compressor is fast enough")
        gives = f"through the compressor come {_mib(self.packed)} of the disk a second"
        if self.plain is None and self.waits:
            return Packing(0, TRY, f"{gives}: to see whether the link takes more without")
        if self.plain is not None and self.plain > self.packed:
            return Packing(0, STRETCH, f"{gives}, without it {_mib(self.plain)}")
        return Packing(QUICK if self.waits else _level(link), STRETCH, f"{takes}, and {gives}")


def _level(link: float) -> int:
    """The level to begin with where the link is the bottleneck."""
    return THOROUGH if link < CRAWL else MIDDLE


def _mib(rate: float) -> str:
    return f"{rate / 2**20:.1f} MiB"


def stretch(packing: Packing, left: int) -> int:
    """How many of the remaining blocks to send in this way; a short rest is added to what comes before it."""
    return left if left - packing.blocks < PROBE else packing.blocks


def ranges_of(numbers: t.Sequence[int], offsets: t.Mapping[int, int]) -> list[tuple[int, int]]:
    """The parts of a layer's file, as (offset, bytes), that hold these blocks; neighbours are joined.

    :param offsets: of all blocks in the file.
    """
    ranges: list[tuple[int, int]] = []
    for number in numbers:
        at = offsets[number]
        if ranges and sum(ranges[-1]) == at:
            ranges[-1] = (ranges[-1][0], ranges[-1][1] + BLOCK)
        else:
            ranges.append((at, BLOCK))
    return ranges


def wrong_blocks(numbers: t.Sequence[int], hashes: t.Sequence[bytes], blocks: Blocks) -> list[int]:
    """The numbers of received blocks that are not what the index says."""
    return [number for number, found in zip(numbers, hashes) if blocks[number] != found]


def silent(source: Source, seconds: float) -> GridError:
    """The error for a source that sends nothing."""
    return GridError(
        "source_unreachable",
        f"{source.name} has sent nothing for {seconds:g} s",
        remedy=f"See that {source.name} and its disk work; run the same again to go on where it ended",
        source=source.name,
    )


def broken(source: Source) -> GridError:
    """The error for a TLS connection that ended too early."""
    return GridError(
        "source_unreachable",
        f"{source.name} was lost: the connection to its port {source.tls_port} ended",
        remedy=f"See that {source.name} works; run the same again to go on where it ended",
        tried=f"TLS to {source.host}",
        source=source.name,
    )


def nonsense(source: Source, why: str) -> GridError:
    """The error for a source that breaks the protocol."""
    return GridError(
        "transfer_failed",
        f"{source.name} {why}",
        remedy="Run the playbook virtuoso.grid.setup on both hosts, which brings them to the same version",
        source=source.name,
    )


def refusal(source: Source, error: object, code: str) -> GridError:
    """The error for a request that the source refused.

    :param error: what it answered: ``code`` and ``msg``.
    :param code: of the error where the source doesn't have what was requested.
    """
    error = error if isinstance(error, dict) else {}
    said = shorten(error.get("msg"))
    if error.get("code") == "missing":
        remedy = "Run the module image there, which makes it again"
        return GridError(
            code, f"{source.name} does not have what was asked for: {said}", remedy=remedy, source=source.name
        )
    if error.get("code") == "cut_off":
        return GridError(
            "layer_corrupted",
            f"the layer on {source.name} is not whole: {said}",
            remedy=f"Remove the file on {source.name}; the module image makes it again there",
            source=source.name,
        )
    return GridError(
        "transfer_failed",
        f"{source.name} refused: {said}",
        remedy="See that its image store can be read",
        source=source.name,
    )


_REFUSED = ("Permission denied (", "Too many authentication failures")
_UNTRUSTED = ("Host key verification failed", "No matching host key", "REMOTE HOST IDENTIFICATION HAS CHANGED")
_NEVER = (
    "Connection refused",
    "Connection timed out",
    "No route to host",
    "Network is unreachable",
    "Could not resolve",
    "timed out during",
)


def blame(source: Source, rc: int, stderr: str) -> GridError:
    """The error for an SSH connection that ended too early, from ssh's exit code and standard error."""
    said = [line for line in stderr.splitlines() if line.strip() and not line.startswith("Warning:")]
    # The first line names the cause
    first = said[0][:300] if said else "it said nothing"
    setup = "Run the playbook virtuoso.grid.setup on both hosts, which exchanges their keys"
    if any(text in stderr for text in _UNTRUSTED):
        code, why, remedy = "source_untrusted", f"the key of {source.name} is not the one that is known here", setup
    elif any(text in stderr for text in _REFUSED):
        code, why, remedy = "source_refused", f"{source.name} did not let us in as {source.user}", setup
    elif rc == 255 or rc < 0:
        why = "could not be reached" if any(text in stderr for text in _NEVER) else "was lost"
        code, why = "source_unreachable", f"{source.name} {why}: {first}"
        remedy = (
            f"See that this host reaches {source.host} port {source.port}; run the same again to go on where it ended"
        )
    else:
        code, why, remedy = (
            "transfer_failed",
            f"the sender on {source.name} ended with code {rc}: {first}",
            f"Run the playbook virtuoso.grid.setup on {source.name}, which installs it; "
            "then the same again to go on where it ended",
        )
    return GridError(code, why, remedy=remedy, tried=f"ssh to {source.host}", rc=rc, stderr=stderr[-2000:])
