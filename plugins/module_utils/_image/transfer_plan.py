# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a transfer takes: which blocks come from where, how they are packed, and what a failure means (pure)."""

from __future__ import annotations

import dataclasses
import re
import shlex
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._image.index import BLOCK, Blocks, Index
from ansible_collections.virtuoso.grid.plugins.module_utils._image.reference import (
    Manifest,
    manifest_file,
    parse_manifest,
    split_reference,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._image.text import check, check_path, shorten

CONNECT_TIMEOUT = 15

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?|\[?[0-9A-Fa-f:.]{2,45}(%[A-Za-z0-9.-]{1,15})?\]?", re.ASCII)
_KEY_NAME = re.compile(r"\[[^]\s]{1,255}\]:[0-9]{1,5}", re.ASCII)


class Source(t.NamedTuple):
    """The host that has the images, as the destination reaches it.

    ``key_name`` is the name under which its host key is known, where that isn't the address.
    """

    name: str
    host: str
    port: int
    user: str
    identity_file: str
    known_hosts_file: str
    key_name: str | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Item:
    """One image that is to be here: its name, the digest of its topmost layer, and bytes of its files if they are known."""

    name: str
    version: str
    digest: str
    size: int | None
    manifest: Manifest | None


def parse_source(value: t.Mapping[str, t.Any]) -> Source:
    """Check the option ``source``. :raises GridError: ``invalid_source``, ``invalid_user``, ``invalid_path``."""
    host = _address("host", value["host"])
    if not 0 < value["port"] < 65536:
        raise GridError("invalid_source", f"{value['port']} is not a port", remedy="Give a port of 1 to 65535")
    return Source(
        name=value.get("name") or host,
        host=host,
        port=value["port"],
        user=check("user", value["user"]),
        identity_file=check_path("identity_file", value["identity_file"]),
        known_hosts_file=check_path("known_hosts_file", value["known_hosts_file"]),
        key_name=_key_name(value["key_name"]) if value.get("key_name") else None,
    )


def _key_name(value: t.Any) -> str:
    """An address, or one with a port as a file of known hosts has it."""
    return value if isinstance(value, str) and _KEY_NAME.fullmatch(value) else _address("key_name", value)


def _address(what: str, value: t.Any) -> str:
    if not isinstance(value, str) or not _HOST.fullmatch(value):
        raise GridError("invalid_source", f"{what} {shorten(value)} is not an address", remedy="Give a host name or an IP address")
    return value


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


def ssh_argv(source: Source) -> list[str]:
    """The connection to the source's sender. The host's own configuration of ssh has no say in it."""
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
        # Half the work of the default where processors have AES, as nearly all do; whoever can't takes another
        "Ciphers": "^aes128-gcm@openssh.com",
        "ConnectTimeout": str(CONNECT_TIMEOUT),
        "ServerAliveInterval": "15",
        "ServerAliveCountMax": "4",
    }
    if source.key_name:
        options["HostKeyAlias"] = source.key_name
    words = ["ssh", "-F", "/dev/null", "-T", "-x", "-i", source.identity_file, "-p", str(source.port), "-l", source.user]
    for key, value in options.items():
        words += ["-o", f"{key}={value}"]
    return [*words, "--", source.host.strip("[]"), "send"]


@dataclasses.dataclass(frozen=True)
class Fetch:
    """Where the blocks of a layer come from.

    ``here``: number of a block and where it lies on this host, as (digest of the layer, number there). ``order``: numbers of the
    blocks that are asked for, ascending. ``repeats``: number of a block that is like one of ``order``, and that one's number.
    """

    here: dict[int, tuple[str, int]]
    order: list[int]
    repeats: dict[int, int]


def plan_fetch(index: Index, whole: t.Container[int], local: t.Mapping[bytes, tuple[str, int]]) -> Fetch:
    """Ask for nothing that is on this host already, and for nothing twice.

    :param whole: numbers of the blocks that an interrupted transfer has brought. :param local: layer and number by hash.
    """
    here: dict[int, tuple[str, int]] = {}
    order: list[int] = []
    repeats: dict[int, int] = {}
    first: dict[bytes, int] = {}
    for number in index.data:
        found = index.blocks[number]
        if number in whole:
            first.setdefault(found, number)
        elif found in local:
            here[number] = local[found]
        elif found in first:
            repeats[number] = first[found]
        else:
            first[found] = number
            order.append(number)
    return Fetch(here, order, repeats)


def places_by_hash(layers: t.Mapping[str, Index]) -> dict[bytes, tuple[str, int]]:
    """Where each block that layers here have lies; of equal ones the first counts."""
    places: dict[bytes, tuple[str, int]] = {}
    for digest, index in layers.items():
        for number in index.data:
            places.setdefault(index.blocks[number], (digest, number))
    return places


def nearest(fetch: Fetch) -> str | None:
    """The layer here that gives the most blocks."""
    counts: dict[str, int] = {}
    for digest, dummy in fetch.here.values():
        counts[digest] = counts.get(digest, 0) + 1
    return max(counts, key=lambda digest: (counts[digest], digest)) if counts else None


GLANCE = 8
"""Blocks that are sent first, as they are: enough to see whether the link is so fast that nothing else matters."""

PROBE = 64
"""Blocks that are sent next, packed quickly, to measure the link and the compressor."""

STRETCH = 2048
"""Blocks after which both are looked at again: what else the hosts do, and what the data are, changes on the way."""

WORTH_MEASURING = 4 * PROBE
"""For fewer blocks than this the answer would come too late."""

QUICK = 1
"""The level for the probe, and for what isn't worth measuring."""

FAST = 250e6
"""Bytes a second from which on a link is faster than one thread compresses for it."""

# How fast zstd is at a level with a window of 128 MiB, and how large its output, relative to level 1, measured on the disk of a Debian
# system. What is sent next may be another kind of data, so not all of the speed is counted on.
_LEVELS = {12: (0.064, 0.843), 9: (0.17, 0.856), 6: (0.26, 0.883), 3: (0.70, 0.936), 1: (1.0, 1.0)}
_MARGIN = 0.7
# The link is not what was waited for where it took at least this part of what the compressor gave.
_AS_FAST = 0.85
_HARDLY = 0.97
_SAME = 1.03


class Packing(t.NamedTuple):
    """The level of zstd, 0 for none, and why."""

    level: int
    why: str


def choose_packing(link: float, compressor: float, ratio: float) -> Packing:
    """How to send the rest, from what the probe showed: what takes the least time; of what takes the same, the fewest bytes.

    :param link: bytes a second that came. :param compressor: bytes of the disk that level 1 took a second at the source.
    :param ratio: bytes sent by bytes of the disk.
    """
    if link >= _AS_FAST * compressor * ratio:
        return Packing(0, f"the link takes {_mib(link)}/s, as much as the compressor gives: faster without")
    if ratio > _HARDLY:
        return Packing(0, f"it can't be compressed (to {100 * ratio:.0f} % only)")
    seconds = {level: max(1 / (_MARGIN * speed * compressor), ratio * size / link) for level, (speed, size) in _LEVELS.items()}
    seconds[0] = 1 / link
    level = max(level for level, each in seconds.items() if each <= _SAME * min(seconds.values()))
    if level == 0:
        return Packing(0, f"the link takes {_mib(link)}/s, and the compressor is slower")
    return Packing(level, f"the link takes {_mib(link)}/s, and the compressor keeps up with it at level {level}")


@dataclasses.dataclass
class Measured:
    """What is known of the link and the compressor: bytes a second that came, and of what level 1 would give at the source."""

    link: float | None = None
    compressor: float | None = None
    ratio: float = 1.0

    def see(self, level: int, content: int, came: tuple[int, float], sent: int, waited: float | None) -> None:
        """Take in how a part came.

        :param level: that it was packed with. :param content: its bytes on the disk. :param came: bytes, and the seconds they took.
        :param sent: bytes that the source gave. :param waited: seconds in which the source waited for its compressor.
        """
        link = came[0] / max(came[1], 1e-6)
        if level == 0 or waited is None:
            self.link = link
            return
        speed, size = _LEVELS[level]
        self.compressor = content / max(waited, 1e-6) / speed
        self.ratio = sent / content / size
        # While the compressor is waited for, the link may be faster than what it is given.
        self.link = max(link, self.link or 0.0) if waited > 0.8 * came[1] else link

    def packing(self, bandwidth: int | None) -> Packing:
        """How to send what comes next."""
        link = self.link or 0.0
        if bandwidth is not None:
            link = min(link, float(bandwidth))
        if self.compressor is None:
            return Packing(0, f"the link takes {_mib(link)}/s: faster without") if link >= FAST else Packing(QUICK, "to measure the link")
        return choose_packing(link, self.compressor, self.ratio)


def _mib(rate: float) -> str:
    return f"{rate / 2**20:.1f} MiB"


def stretches(count: int) -> t.Iterator[int]:
    """How many blocks are sent between one look at the link and the next: few first, then ever more."""
    if count < WORTH_MEASURING:
        sizes = [count]
    else:
        sizes = [GLANCE, PROBE, STRETCH // 2]
    while count:
        size = min(sizes.pop(0) if sizes else STRETCH, count)
        # A short end goes with what comes before it
        size = count if count - size < PROBE else size
        yield size
        count -= size


def ranges_of(numbers: t.Sequence[int], offsets: t.Mapping[int, int]) -> list[tuple[int, int]]:
    """The parts of a layer's file, as (offset, bytes), that have these blocks; neighbours are joined."""
    ranges: list[tuple[int, int]] = []
    for number in numbers:
        at = offsets[number]
        if ranges and sum(ranges[-1]) == at:
            ranges[-1] = (ranges[-1][0], ranges[-1][1] + BLOCK)
        else:
            ranges.append((at, BLOCK))
    return ranges


def wrong_blocks(numbers: t.Sequence[int], hashes: t.Sequence[bytes], blocks: Blocks) -> list[int]:
    """Which of the blocks that came are not what the index says."""
    return [number for number, found in zip(numbers, hashes) if blocks[number] != found]


def nonsense(source: Source, why: str) -> GridError:
    """The error for a source that doesn't keep to the protocol."""
    return GridError(
        "transfer_failed",
        f"{source.name} {why}",
        remedy="Run the playbook virtuoso.grid.setup on both hosts, which brings them to the same version",
        source=source.name,
    )


def refusal(source: Source, error: t.Any, code: str) -> GridError:
    """The error for what the source's sender can't give.

    :param code: where what was asked for is not there.
    """
    error = error if isinstance(error, dict) else {}
    said = shorten(error.get("msg"))
    if error.get("code") == "missing":
        remedy = "Run the module image there, which makes it again"
        return GridError(code, f"{source.name} does not have what was asked for: {said}", remedy=remedy, source=source.name)
    if error.get("code") == "cut_off":
        return GridError(
            "layer_corrupted",
            f"the layer on {source.name} is not whole: {said}",
            remedy=f"Remove the file on {source.name}; the module image makes it again there",
            source=source.name,
        )
    return GridError(
        "transfer_failed", f"{source.name} refused: {said}", remedy="See that its image store can be read", source=source.name
    )


_REFUSED = ("Permission denied (", "Too many authentication failures")
_UNTRUSTED = ("Host key verification failed", "No matching host key", "REMOTE HOST IDENTIFICATION HAS CHANGED")
_NEVER = ("Connection refused", "Connection timed out", "No route to host", "Network is unreachable", "Could not resolve", "timed out during")


def blame(source: Source, rc: int, stderr: str) -> GridError:
    """The error for a connection that ended before its time."""
    said = [line for line in stderr.splitlines() if line.strip() and not line.startswith("Warning:")]
    # What comes first is the cause
    first = said[0][:300] if said else "it said nothing"
    setup = "Run the playbook virtuoso.grid.setup on both hosts, which exchanges their keys"
    if any(text in stderr for text in _UNTRUSTED):
        code, why, remedy = "source_untrusted", f"the key of {source.name} is not the one that is known here", setup
    elif any(text in stderr for text in _REFUSED):
        code, why, remedy = "source_refused", f"{source.name} did not let us in as {source.user}", setup
    elif rc == 255 or rc < 0:
        why = "could not be reached" if any(text in stderr for text in _NEVER) else "was lost"
        code, why = "source_unreachable", f"{source.name} {why}: {first}"
        remedy = f"See that this host reaches {source.host} port {source.port}; run the same again to go on where it ended"
    else:
        code, why, remedy = (
            "transfer_failed",
            f"the sender on {source.name} ended with code {rc}: {first}",
            f"Run the playbook virtuoso.grid.setup on {source.name}, which installs it; then the same again to go on where it ended",
        )
    return GridError(code, why, remedy=remedy, tried=f"ssh to {source.host}", rc=rc, stderr=stderr[-2000:])
