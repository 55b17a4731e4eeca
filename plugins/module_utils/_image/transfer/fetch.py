# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gets images from another host's store: only missing blocks, over one connection, resumed, verified, then named."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._disk_space import check_space, disk_errors
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError, Result
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

Outcome = t.Union[Result, GridError]

_MOST_LAYERS_LOOKED_AT = 64


@dataclasses.dataclass(frozen=True)
class MissingLayer:
    """A layer that is not here, with its index from the source."""

    digest: str
    index: Index
    encoded: bytes


def look(depot: Depot, item: plan.Item) -> list[str]:
    """The actions that the image needs, from what the store holds now. A manifest that can't be read is replaced."""
    try:
        manifest = depot.manifest(item.name, item.version)
    except GridError:
        manifest = None
    return plan.decide(all(map(depot.has, depot.and_below(item.digest))), manifest, item.digest)


@dataclasses.dataclass
class Account:
    """How an image was transferred.

    In bytes: ``received`` through the connection, ``fetched`` requested blocks, ``copied`` from layers here,
    ``resumed`` from an interrupted transfer. ``base``: the layer here that had the most blocks. ``link``: bytes a
    second.
    """

    received: int = 0
    fetched: int = 0
    copied: int = 0
    resumed: int = 0
    base: str | None = None
    packing: plan.Packing | None = None
    link: float | None = None
    transport: str | None = None

    def result(self, actions: list[str], seconds: float) -> Result:
        """The module's result for the image."""
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
    """Get the images that are missing.

    :param cap: the most to use of the link.
    :param ahead: get only what a boot reads, for a pager; another run gets the rest.
    :param begun: a connection that was started already.
    :returns: for each image, in order, its result (see :class:`Account`) or its error.
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
                # Half an answer may be left in the connection
                for lost in opened:
                    lost.__exit__()
                opened.clear()
    return outcomes


class _Transfer:
    """The transfer of one image."""

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
        """Numbers of the blocks that a boot reads; only looked up where there is a pager."""
        self.free: float | None = None
        """What the link gave without a limit, in bytes a second."""
        self.account = Account()
        self.measured = plan.Measured()

    def run(self, item: plan.Item) -> Result:
        """Get the missing layers of the chain, the lowest first, then write the manifest."""
        begin = time.monotonic()
        actions = look(self.depot, item)
        if actions:
            before = None
            if "transfer" in actions:
                self.progress.stage("connect")
                before = self.link().received
                missing = self._missing(item.digest)
                self._look_for_pager(item.digest, [layer.digest for layer in reversed(missing)])
                for place, layer in enumerate(missing):
                    with self.depot.job("get-" + layer.digest[len("sha256:") :][:32]) as work:
                        # Another run may have brought it while this one waited
                        if not self.depot.has(layer.digest):
                            hidden = {number for above in missing[place + 1 :] for number in above.index.blocks}
                            self._bring(layer, work, hidden)
            if self.ahead:
                return {}
            self.depot.commit(self._manifest(item), {})
            if before is not None:
                self.account.received = self.link().received - before
                self.account.transport = self.link().channel.NAME
            self.progress.stage("done")
        return self.account.result(actions, round(time.monotonic() - begin, 3))

    def _missing(self, top: str) -> list[MissingLayer]:
        """The layers of the chain that are not here, the lowest first."""
        found: list[MissingLayer] = []
        digest: str | None = top
        for dummy in range(MAX_LAYERS + 1):
            if digest is None:
                return found[::-1]
            if self.depot.has(digest):
                digest = self.depot.index(digest).parent
                continue
            encoded = self.link().index(digest)
            index = decode(encoded, digest)
            found.append(MissingLayer(digest, index, encoded))
            digest = index.parent
        raise GridError(
            "layer_corrupted",
            f"{self.source.name} has more than {MAX_LAYERS} layers for {top}",
            remedy="Flatten the image there: state flattened of the module image",
        )

    def _look_for_pager(self, top: str, missing: t.Sequence[str]) -> None:
        """Find out whether machines page from the image, and then what they read first: the source's boot record of the
        topmost layer that has one."""
        feed = Feed(self.depot, top, self.ahead)
        if not self.ahead and not feed.pager.there():
            return
        self.feed = feed
        for digest in missing:
            with contextlib.suppress(GridError):
                self.record = boot.parse(self.link().boot(digest))
                return

    def _bring(self, layer: MissingLayer, work: str, hidden: set[int]) -> None:
        """Receive one layer. :param hidden: numbers of blocks that layers above it hold."""
        digest, path = layer.digest, os.path.join(work, "layer" + PART)
        # No pager may read the file while its tables change
        withdraw(self.depot, digest)
        try:
            incoming = Incoming(path, layer.index)
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
            # Keeping a part for the next run would keep a full disk full
            with contextlib.suppress(GridError):
                withdraw(self.depot, digest)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            raise
        whole = os.path.join(work, "layer.qcow2")
        os.replace(path, whole)
        self.depot.commit(None, {digest: Made(whole, layer.encoded)})

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
        """The indexes of layers here that may have blocks of the wanted one, the chain below it first."""
        # When only what a boot reads is fetched, the layer below may not be here either
        found = self.depot.chain(parent) if parent is not None and self.depot.has(parent) else {}
        for layer in self.depot.read_layers()[:_MOST_LAYERS_LOOKED_AT]:
            with contextlib.suppress(GridError):
                found.setdefault(layer["digest"], self.depot.index(layer["digest"]))
        return found

    def _stream(self, digest: str, incoming: Incoming, numbers: list[int]) -> list[int]:
        """Request blocks in the way that is measured to be the fastest.

        :returns: numbers of the blocks that came damaged.
        """
        wrong: list[int] = []
        self.account.fetched += len(numbers) * BLOCK
        done = 0
        while done < len(numbers):
            packing = self._packing(len(numbers))
            count = plan.stretch(packing, len(numbers) - done)
            part = numbers[done : done + count]
            wrong += self._part(digest, incoming, part, packing.level, (done, len(numbers)))
            link = self.link()
            self.measured.see(packing.level, count * BLOCK, link.measured, link.waited)
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
    def _readers(self) -> Feed | None:
        """The pager whose machines read meanwhile; the transfer gives way to them."""
        return None if self.ahead else self.feed

    def _limit(self) -> int | None:
        """The limit in bytes a second. Where machines page, a share of the link is kept only while they read."""
        return (plan.Cap(self.cap.rate) if self._readers is not None else self.cap).limit(self.free)

    def _part(
        self, digest: str, incoming: Incoming, numbers: list[int], level: int, span: tuple[int, int]
    ) -> list[int]:
        """Request some of the blocks.

        :param span: how many blocks came before, and how many come in all.
        :returns: numbers of the blocks that came damaged.
        """
        ranges = plan.ranges_of(numbers, incoming.layout.offsets)
        feed = self._readers
        stream = self.link().ranges(digest, ranges, level, self._limit(), self.feed is not None)
        came, taken = [0], [self.link().received]

        def report(count: int) -> None:
            came[0] = count
            if feed is not None:
                received = self.link().received
                feed.give_way(received - taken[0], self.cap.limit(self.free))
                taken[0] = received
            self.progress.bytes("transfer", (span[0] + count) * BLOCK, span[1] * BLOCK)

        wrong = incoming.take(numbers, stream, report, self.link().buffers.give)
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
    """Reads blocks of layers on this host; each file is opened once."""

    def __init__(self, depot: Depot, stack: contextlib.ExitStack) -> None:
        self.depot = depot
        self._stack = stack
        self._files: dict[str, tuple[int, dict[int, int]]] = {}

    def read(self, digest: str, number: int) -> bytes:
        """Read a block from a layer's file; empty where the file is gone."""
        if digest not in self._files:
            try:
                descriptor = os.open(self.depot.layer_path(digest), os.O_RDONLY)
                self._stack.callback(os.close, descriptor)
                self._files[digest] = (descriptor, lay_out(self.depot.index(digest)).offsets)
            except (OSError, GridError):
                self._files[digest] = (-1, {})
        descriptor, offsets = self._files[digest]
        return read_exactly(descriptor, BLOCK, offsets[number]) if number in offsets else b""
