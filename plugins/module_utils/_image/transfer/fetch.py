# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Get images from another host's store: only the blocks that this host lacks, in one connection, resumed, verified,
then named."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._disk_space import check_space, disk_errors
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store import boot
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.content import damaged, read_exactly
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.depot import PART, Depot, Made
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.index import BLOCK, Index, decode
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.layout import plan as lay_out
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.reference import (
    MAX_LAYERS,
    Manifest,
    manifest_file,
    parse_manifest,
    reference,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._image.transfer import blocks, plan
from ansible_collections.virtuoso.grid.plugins.module_utils._image.transfer.feed import Feed, withdraw
from ansible_collections.virtuoso.grid.plugins.module_utils._image.transfer.link import Link
from ansible_collections.virtuoso.grid.plugins.module_utils._image.transfer.receive import Incoming
from ansible_collections.virtuoso.grid.plugins.module_utils._progress import Progress

Result = t.Dict[str, t.Any]
Outcome = t.Union[Result, GridError]

_MOST_LAYERS_LOOKED_AT = 64


def look(depot: Depot, item: plan.Item) -> list[str]:
    """What is to be done for the image, from what the store holds now. A manifest that can't be read is replaced."""
    try:
        manifest = depot.manifest(item.name, item.version)
    except GridError:
        manifest = None
    return plan.decide(all(map(depot.has, depot.and_below(item.digest))), manifest, item.digest)


@dataclasses.dataclass
class Account:
    """How an image came."""

    methods: list[str] = dataclasses.field(default_factory=list)
    received: int = 0
    fetched: int = 0
    copied: int = 0
    resumed: int = 0
    base: str | None = None
    packing: plan.Packing | None = None
    link: float | None = None
    transport: str | None = None

    def result(self, actions: list[str], seconds: float) -> Result:
        """What the module returns of it."""
        method = "none" if "transfer" not in actions else "delta" if self.copied else "whole"
        why = {
            "none": "all layers were here",
            "delta": f"{self.copied // BLOCK} blocks were here in other layers, most in {self.base}",
            "whole": "no layer here has any of its blocks",
        }[method]
        return {
            "actions": actions,
            "method": method,
            "why": why,
            "compression": f"zstd -{self.packing.level}" if self.packing and self.packing.level else "none",
            "compression_why": self.packing.why if self.packing else None,
            "link": None if self.link is None else int(self.link),
            "transport": self.transport,
            "transferred": self.received,
            "content": self.fetched,
            "copied": self.copied,
            "resumed": self.resumed,
            "seconds": seconds if actions else 0.0,
        }


def get(
    depot: Depot,
    source: plan.Source,
    items: t.Sequence[plan.Item],
    progress: Progress,
    cap: plan.Cap = plan.Cap(),
    ahead: bool = False,
    begun: Link | None = None,
) -> list[Outcome]:
    """Have the images here; for each, in order, what came and how (see :class:`Account`), or the error.

    :param cap: the most that it takes of the link.
    :param ahead: only what a boot reads, for a pager; the rest is left to another run.
    :param begun: a connection that is made already.
    """
    with disk_errors(depot.images):
        depot.prepare()
        depot.sweep()
    outcomes: list[Outcome] = []
    with contextlib.ExitStack() as stack:
        opened: list[Link] = [] if begun is None else [stack.enter_context(begun)]

        def link() -> Link:
            if not opened:
                opened.append(stack.enter_context(Link(source)))
            return opened[0]

        for item in items:
            try:
                with disk_errors(depot.images):
                    transfer = _Transfer(
                        depot, source, link, progress.about(reference(item.name, item.version)), cap, ahead
                    )
                    outcomes.append(transfer.run(item))
            except GridError as exc:
                outcomes.append(exc)
                # What came last may be half an answer
                for lost in opened:
                    lost.__exit__()
                opened.clear()
    return outcomes


class _Transfer:
    """One image."""

    def __init__(
        self,
        depot: Depot,
        source: plan.Source,
        link: t.Callable[[], Link],
        progress: Progress,
        cap: plan.Cap,
        ahead: bool,
    ) -> None:
        self.depot = depot
        self.source = source
        self.link = link
        self.progress = progress
        self.cap = cap
        self.ahead = ahead
        self.feed: Feed | None = None
        self.record: list[int] | None = None
        """What a boot reads; looked for only where there is a pager."""
        self.free: float | None = None
        """What the link gave before it was capped, in bytes a second."""
        self.account = Account()
        self.measured = plan.Measured()

    def run(self, item: plan.Item) -> Result:
        """Get what is missing of the chain, the lowest layer first, then name it."""
        begin = time.monotonic()
        actions = look(self.depot, item)
        if actions:
            before = None
            if "transfer" in actions:
                self.progress.stage("connect")
                before = self.link().received
                missing = self._missing(item.digest)
                self._look_for_pager(item.digest, [digest for digest, dummy, dummy in reversed(missing)])
                for place, (digest, index, encoded) in enumerate(missing):
                    with self.depot.job("get-" + digest[len("sha256:") :][:32]) as work:
                        # Another run may have brought it while this one waited
                        if not self.depot.has(digest):
                            above = missing[place + 1 :]
                            hidden = {number for dummy, other, dummy in above for number in other.blocks}
                            self._bring(digest, index, encoded, work, hidden)
            if self.ahead:
                return {}
            self.depot.commit(self._manifest(item), {})
            if before is not None:
                self.account.received = self.link().received - before
                self.account.transport = self.link().channel.NAME
            self.progress.stage("done")
        return self.account.result(actions, round(time.monotonic() - begin, 3))

    def _missing(self, top: str) -> list[tuple[str, Index, bytes]]:
        """The layers of the chain that are not here, the lowest first, with their indexes from the source."""
        found: list[tuple[str, Index, bytes]] = []
        digest: str | None = top
        for dummy in range(MAX_LAYERS + 1):
            if digest is None:
                return found[::-1]
            if self.depot.has(digest):
                digest = self.depot.index(digest).parent
                continue
            encoded = self.link().index(digest)
            index = decode(encoded, digest)
            found.append((digest, index, encoded))
            digest = index.parent
        raise GridError(
            "layer_corrupted",
            f"{self.source.name} has more than {MAX_LAYERS} layers for {top}",
            remedy="Flatten the image there: state flattened of the module image",
        )

    def _look_for_pager(self, top: str, missing: t.Sequence[str]) -> None:
        """Whether machines wait for it, and then what they read first: as the source has it, of the topmost layer of
        which there is a record."""
        feed = Feed(self.depot, top, self.ahead)
        if not self.ahead and not feed.pager.there():
            return
        self.feed = feed
        for digest in missing:
            with contextlib.suppress(GridError):
                self.record = boot.parse(self.link().boot(digest))
                return

    def _bring(self, digest: str, index: Index, encoded: bytes, work: str, hidden: set[int]) -> None:
        path = os.path.join(work, "layer" + PART)
        # From here on its tables are ours
        withdraw(self.depot, digest)
        try:
            incoming = Incoming(path, index)
            try:
                if self.feed is not None:
                    self.feed.begin(digest, incoming, hidden)
                self._fill(digest, incoming)
                if self.feed is not None:
                    if self.ahead:
                        self.feed.complete()
                        return
                    self.feed.end(digest)
                withdraw(self.depot, digest)
                incoming.finish()
            finally:
                incoming.close()
        except OSError:
            # On a full disk, what is kept would keep it full for everybody else
            with contextlib.suppress(GridError):
                withdraw(self.depot, digest)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            raise
        whole = os.path.join(work, "layer.qcow2")
        os.replace(path, whole)
        self.depot.commit(None, {digest: Made(whole, encoded)})

    def _fill(self, digest: str, incoming: Incoming) -> None:
        kept = incoming.kept()
        first = [] if self.feed is None else boot.wanted_first(self.record, incoming.index.data)
        fetch = blocks.plan_fetch(
            incoming.index, kept, blocks.places_by_hash(self._layers_here(incoming.index.parent)), first
        )
        if self.ahead:
            fetch = blocks.only(fetch, set(first))
        check_space(self.depot.images, (len(incoming.layout.offsets) - len(kept)) * BLOCK, "the image")
        with contextlib.ExitStack() as stack:
            wrong = incoming.copy(fetch.here, _Readers(self.depot, stack).read)
        self.account.copied += (len(fetch.here) - len(wrong)) * BLOCK
        self.account.resumed += len(kept) * BLOCK
        self.account.base = blocks.nearest(fetch) or self.account.base
        wanted = [*fetch.order, *wrong]
        for dummy in range(2):
            if wanted:
                wanted = self._stream(digest, incoming, wanted)
        if wanted:
            raise damaged(digest, wanted, self.source.name)
        incoming.repeat(fetch.repeats)

    def _layers_here(self, parent: str | None) -> dict[str, Index]:
        """Indexes of the layers here that may have blocks of the wanted one, the chain below it first."""
        # Ahead of the rest the layer below may not be here either
        found = self.depot.chain(parent) if parent is not None and self.depot.has(parent) else {}
        for layer in self.depot.read_layers()[:_MOST_LAYERS_LOOKED_AT]:
            with contextlib.suppress(GridError):
                found.setdefault(layer["digest"], self.depot.index(layer["digest"]))
        return found

    def _stream(self, digest: str, incoming: Incoming, numbers: list[int]) -> list[int]:
        """Have the blocks sent, as the link and the compressor turn out to be; the numbers of those that came wrong."""
        wrong: list[int] = []
        self.account.fetched += len(numbers) * BLOCK
        done = 0
        while done < len(numbers):
            packing = self._packing(len(numbers))
            count = plan.stretch(packing, len(numbers) - done)
            part = numbers[done : done + count]
            wrong += self._part(digest, incoming, part, packing.level, (done, len(numbers)))
            link = self.link()
            self.measured.see(packing.level, count * BLOCK, link.measured, link.end.get("compressing"))
            self.free = self.free or self.measured.link
            self.account.link = self.measured.link
            self.account.packing = packing
            done += count
        return wrong

    def _packing(self, count: int) -> plan.Packing:
        if count < plan.WORTH_MEASURING:
            return plan.Packing(plan.QUICK, count, "too little to measure the link with")
        return self.measured.packing(self._limit())

    @property
    def _yields(self) -> Feed | None:
        """Machines that read what comes meanwhile; to them the rest of it gives way."""
        return None if self.ahead else self.feed

    def _limit(self) -> int | None:
        """Bytes a second at most; a share of the link is kept to only while machines read."""
        return (plan.Cap(self.cap.rate) if self._yields is not None else self.cap).limit(self.free)

    def _part(
        self, digest: str, incoming: Incoming, numbers: list[int], level: int, span: tuple[int, int]
    ) -> list[int]:
        ranges = plan.ranges_of(numbers, incoming.layout.offsets)
        feed = self._yields
        stream = self.link().ranges(digest, ranges, level, self._limit(), self.feed is not None)
        came, taken = [0], [self.link().received]

        def told(count: int) -> None:
            came[0] = count
            if feed is not None:
                received = self.link().received
                feed.give_way(received - taken[0], self.cap.limit(self.free))
                taken[0] = received
            self.progress.bytes("transfer", (span[0] + count) * BLOCK, span[1] * BLOCK)

        wrong = incoming.take(numbers, stream, told, self.link().buffers.give)
        if came[0] < len(numbers):
            raise plan.nonsense(self.source, "sent less than it was asked for")
        return wrong

    def _manifest(self, item: plan.Item) -> Manifest:
        if item.manifest is not None:
            return item.manifest
        name = reference(item.name, item.version)
        manifest = parse_manifest(self.link().manifest(name), manifest_file(item.name, item.version))
        plan.expect(manifest, item.digest)
        return manifest


class _Readers:
    """Reads blocks of layers of this host; each file is opened once."""

    def __init__(self, depot: Depot, stack: contextlib.ExitStack) -> None:
        self.depot = depot
        self._stack = stack
        self._files: dict[str, tuple[int, dict[int, int]]] = {}

    def read(self, digest: str, number: int) -> bytes:
        """A block as it lies in the layer's file; nothing where the file is gone."""
        if digest not in self._files:
            try:
                descriptor = os.open(self.depot.layer_path(digest), os.O_RDONLY)
                self._stack.callback(os.close, descriptor)
                self._files[digest] = (descriptor, lay_out(self.depot.index(digest)).offsets)
            except (OSError, GridError):
                self._files[digest] = (-1, {})
        descriptor, offsets = self._files[digest]
        return read_exactly(descriptor, BLOCK, offsets[number]) if number in offsets else b""
