# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Get images from another host's store: only what is missing, in one connection, resumed, verified, then named."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._image import transfer_plan as plan
from ansible_collections.virtuoso.grid.plugins.module_utils._image.depot import PART, Depot, content_digest
from ansible_collections.virtuoso.grid.plugins.module_utils._image.progress import Progress
from ansible_collections.virtuoso.grid.plugins.module_utils._image.reference import (
    Manifest,
    manifest_file,
    parse_manifest,
    reference,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._image.tool import check_space, disk_errors, tool
from ansible_collections.virtuoso.grid.plugins.module_utils._image.tree import remove_tree

Result = t.Dict[str, t.Any]
Outcome = t.Union[Result, GridError]

TIMEOUT = 24 * 3600.0


def look(depot: Depot, item: plan.Item) -> list[str]:
    """What is to be done for the image, from what the store holds now. A manifest that can't be read is replaced."""
    try:
        manifest = depot.manifest(item.name, item.version)
    except GridError:
        manifest = None
    return plan.decide(depot.has(item.digest, item.size), manifest, item.digest)


def get(depot: Depot, source: plan.Source, items: t.Sequence[plan.Item], progress: Progress) -> list[Outcome]:
    """Have the images here; for each, in order, what came (``actions``, ``transferred`` bytes, ``seconds``) or the error."""
    begin = time.monotonic()
    with disk_errors(depot.images):
        depot.prepare()
        depot.sweep()
    with depot.job("transfer") as work:
        # Another run may have brought some while this one waited
        actions = [look(depot, item) for item in items]
        incoming = os.path.join(work, "incoming" + PART)
        transfer = _Transfer(depot, source, incoming, os.path.join(work, "log"), progress)
        errors = transfer.run([item for item, todo in zip(items, actions) if todo])
        _tidy(incoming)
    seconds = round(time.monotonic() - begin, 3)
    return [
        errors.get(item)
        or {"actions": todo, "transferred": transfer.bytes.get(item.layer, 0), "seconds": seconds if todo else 0.0}
        for item, todo in zip(items, actions)
    ]


class _Transfer:
    """One run of rsync for several images, and what follows."""

    def __init__(self, depot: Depot, source: plan.Source, incoming: str, log: str, progress: Progress) -> None:
        self.depot = depot
        self.source = source
        self.incoming = incoming
        self.log = log
        self.progress = progress
        self.bytes: dict[str, int] = {}
        self.missing: set[str] = set()

    def run(self, items: t.Sequence[plan.Item]) -> dict[plan.Item, GridError]:
        """Transfer, verify and name; the errors of those that could not be."""
        errors: dict[plan.Item, GridError] = {}
        fitting = []
        planned = 0
        for item in items:
            with _collected(errors, item):
                new = 0 if self.depot.has(item.digest, item.size) else max(0, (item.size or 0) - self._size(item.layer))
                with disk_errors(self.depot.images):
                    check_space(self.depot.images, planned + new, f"{reference(item.name, item.version)}")
                planned += new
                fitting.append(item)
        try:
            with disk_errors(self.depot.images):
                self._pull(fitting)
        except GridError as exc:
            if exc.code == "disk_full":
                self._give_back()
            # Each its own: an error is told which object it is about
            return {
                **errors,
                **{item: GridError(exc.code, exc.msg, tried=exc.tried, remedy=exc.remedy, **exc.details) for item in fitting},
            }
        for item in fitting:
            with _collected(errors, item), disk_errors(self.depot.images):
                self._take(item)
        return errors

    def _path(self, file: str) -> str:
        return os.path.join(self.incoming, file)

    def _size(self, file: str) -> int:
        try:
            return os.stat(self._path(file)).st_size
        except FileNotFoundError:
            return 0

    def _whole(self, item: plan.Item) -> bool:
        """Whether an earlier try brought all of the layer.

        One that is long enough but wrong is removed, for rsync would not touch it.
        """
        path = self._path(item.layer)
        if item.size is None or self._size(item.layer) < item.size:
            return False
        if content_digest(path) == item.digest:
            return True
        os.unlink(path)
        return False

    def _give_back(self) -> None:
        """A disk that is full stays full for everyone else if the part of a layer is kept."""
        remove_tree(self.incoming)

    def _pull(self, items: t.Sequence[plan.Item]) -> None:
        """One rsync for every file that is not here."""
        files = [item.layer for item in items if not self.depot.has(item.digest, item.size) and not self._whole(item)]
        manifests = [item.named_by for item in items if item.manifest is None]
        wanted = sorted({*files, *manifests})
        if not wanted:
            return
        os.makedirs(self.incoming, mode=0o700, exist_ok=True)
        total = sum(item.size or 0 for item in items if item.layer in files)
        argv = plan.rsync_argv(self.source, self.incoming, self.log)
        with self._watched(files, total):
            try:
                # Contained: rsync is several processes, and none may go on writing when this one has ended
                tool(argv, contained=True, input="".join(f"{file}\n" for file in wanted).encode(), timeout=TIMEOUT)
            except GridError as exc:
                self._judge(exc)
        with contextlib.suppress(FileNotFoundError), open(self.log, encoding="utf-8", errors="replace") as stream:
            self.bytes.update(plan.received(stream.read()))

    def _judge(self, exc: GridError) -> None:
        """Go on where only some files were missing; raise what else it was."""
        rc, stderr = exc.details.get("rc"), exc.details.get("stderr", "")
        if rc is None or "No space left on device" in stderr:
            raise exc
        self.missing = plan.missing_files(stderr)
        if rc not in (23, 24) or not self.missing:
            raise plan.blame(self.source, rc, stderr) from exc

    @contextlib.contextmanager
    def _watched(self, files: t.Sequence[str], total: int) -> t.Iterator[None]:
        """Report how far it is while the body runs."""
        end = threading.Event()

        def watch() -> None:
            while not end.wait(1.0):
                self.progress.bytes("transfer", sum(self._size(file) for file in files), total)

        watcher = threading.Thread(target=watch, daemon=True)
        if self.progress.path is not None:
            watcher.start()
        try:
            yield
        finally:
            end.set()
            if watcher.is_alive():
                watcher.join()

    def _take(self, item: plan.Item) -> None:
        """Verify the image's layer, give it its name, then write its manifest."""
        for file in (item.layer, item.named_by):
            if file in self.missing and not (file == item.layer and self.depot.has(item.digest, item.size)):
                raise self._not_there(file)
        files = {}
        if not self.depot.has(item.digest, item.size):
            self.progress.stage("verify")
            path = self._path(item.layer)
            if not os.path.exists(path):
                raise self._not_there(item.layer)
            found = content_digest(path)
            if found != item.digest:
                os.unlink(path)
                raise self._corrupted(item, found)
            files = {item.digest: path}
        self.depot.commit(self._manifest(item), files)

    def _manifest(self, item: plan.Item) -> Manifest:
        if item.manifest is not None:
            return item.manifest
        with open(self._path(item.named_by), "rb") as stream:
            manifest = parse_manifest(stream.read(2**20 + 1), manifest_file(item.name, item.version))
        plan.expect(manifest, item.digest)
        return manifest

    def _not_there(self, file: str) -> GridError:
        kind = "layer" if file.startswith("layers/") else "manifest"
        return GridError(
            f"{kind}_missing",
            f"{self.source.name} does not have {file}",
            remedy="Run the module image there, which makes it again",
            source=self.source.name,
        )

    def _corrupted(self, item: plan.Item, found: str) -> GridError:
        return GridError(
            "layer_corrupted",
            f"{item.layer} of {self.source.name} has the digest {found}; it was not kept",
            remedy=f"If it happens again, remove the file on {self.source.name}; the module image makes it again there",
            source=self.source.name,
            expected=item.digest,
            found=found,
        )


def _tidy(incoming: str) -> None:
    """Keep parts of layers, which a later run goes on with: no manifests, no empty directories."""
    remove_tree(os.path.join(incoming, "manifests"))
    if not any(files for dummy, dirs, files in os.walk(incoming)):
        remove_tree(incoming)


@contextlib.contextmanager
def _collected(errors: dict[plan.Item, GridError], item: plan.Item) -> t.Iterator[None]:
    try:
        yield
    except GridError as exc:
        errors[item] = exc
