# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decides the steps from what a machine is to what it should be (pure).

``changes`` says when a changed field takes effect, ``refusals`` what can't be done.
"""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor import metadata
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.records import (
    MachineModel,
    Metadata,
    SizedExport,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core import changes, copies, disk_base, refusals
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.actual import SAVED, Disk, Observed
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.changes import LIVE, NEXT_START, NOW, pending
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.ordered_address import in_seed
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.records import Change, Pending, Wanted

POWER_STATES = ("present", "running", "paused", "stopped", "restarted", "rebooted", "reset", "hibernated", "absent")

FIRST_BOOT_ONLY = ("packages", "users", "address")
"""The fields that cloud-init applies once, at the machine's first start."""

_FACTS = ("owner", "site", "network", "goal", "user", "python", "generation", "tags", "wishes")


@dataclasses.dataclass(frozen=True)
class Step:
    """One effect: ``create_disk create_paging_disk write_seed define change metadata grow_disk grow_filesystem settle
    repoint stop start resume pause reboot reset hibernate wake compress_memory discard_memory remove``.

    A change has ``field``, its value ``before`` and ``after``, ``when`` (LIVE, NEXT_START or NOW), and ``asks``, which
    says whether the guest must take part.
    """

    kind: str
    field: str = ""
    before: object = None
    after: object = None
    when: str = NOW
    asks: bool = False

    def __str__(self) -> str:
        if self.kind in ("change", "grow_disk", "metadata"):
            verb = "grow" if self.kind == "grow_disk" else "change"
            return f"{verb} {self.field}" + {LIVE: " live", NEXT_START: " at next start", NOW: ""}[self.when]
        return self.kind.replace("_", " ")


@dataclasses.dataclass(frozen=True)
class Decision:
    """The steps, the state in which they end, what is not done and why, the changes that wait for the next start, and
    the metadata afterwards."""

    steps: t.List[Step]
    state: str
    ignored: t.Dict[str, str] = dataclasses.field(default_factory=dict)
    pending: Pending = dataclasses.field(default_factory=dict)
    metadata: t.Optional[Metadata] = None

    @property
    def actions(self) -> list[str]:
        """The steps in words; the same in check mode and in the real run."""
        return [str(step) for step in self.steps]

    @property
    def changes(self) -> list[Change]:
        """Each field that changes, and when; a password's value is left out."""
        kinds = ("change", "metadata", "grow_disk")
        return [
            {"field": step.field, "before": step.before, "after": step.after, "when": step.when}
            if step.field != "display_password"
            else {"field": step.field, "before": None, "after": None, "when": step.when}
            for step in self.steps
            if step.kind in kinds
        ]


_POWER: dict[str, dict[str, tuple[str, ...]]] = {
    "running": {"stopped": ("start",), "paused": ("resume",), "hibernated": ("wake",)},
    "paused": {"stopped": ("start", "pause"), "running": ("pause",), "hibernated": ("wake", "pause")},
    "stopped": {"running": ("stop",), "paused": ("stop",), "hibernated": ("wake", "stop")},
    "restarted": {
        "stopped": ("start",),
        "running": ("stop", "start"),
        "paused": ("stop", "start"),
        "hibernated": ("wake", "stop", "start"),
    },
    "rebooted": {
        "stopped": ("start",),
        "running": ("reboot",),
        "paused": ("resume", "reboot"),
        "hibernated": ("wake", "reboot"),
    },
    "reset": {
        "stopped": ("start",),
        "running": ("reset",),
        "paused": ("reset", "resume"),
        "hibernated": ("wake", "reset"),
    },
    "hibernated": {"running": ("hibernate",), "paused": ("hibernate",)},
}
"""The steps to a power state, by what the machine is now; ``docs/machines.md`` shows the same."""

_ENDS = {"restarted": "running", "rebooted": "running", "reset": "running", "present": None}


def _power(state: str, now: str, memory: str | None = None, discard: bool = False) -> list[Step]:
    """The steps to the wanted power state; ``now`` is ``absent`` for a machine that was only just defined.

    :param discard: the memory of a hibernated machine may be lost.
    """
    now = "stopped" if now == "absent" else now
    before = []
    if discard and now == "hibernated" and state in _POWER and state != "hibernated":
        before, now = [Step("discard_memory")], "stopped"
    elif state == "hibernated" and now == "hibernated" and memory == SAVED:
        return [Step("compress_memory")]
    return [*before, *(Step(kind) for kind in _POWER.get(state, {}).get(now, ()))]


def _end(state: str, now: str) -> str:
    """The state in which a machine is afterwards. One that is off has no memory to keep."""
    off = now in ("absent", "stopped")
    wanted = _ENDS.get(state, state)
    if wanted is None or (wanted == "hibernated" and off):
        return "stopped" if off else now
    return wanted


def _not_kept(state: str, now: str) -> dict[str, str]:
    asked = state == "hibernated" and now in ("absent", "stopped")
    return {"state": "the machine is off: it has no memory that could be kept"} if asked else {}


def _changes(wanted: Wanted, observed: Observed, awake: bool) -> list[Step]:
    steps = []
    for rule in changes.RULES:
        if changes.ordered(rule.field, wanted) and not (rule.field == "autostart" and observed.state == "hibernated"):
            steps += _change(rule.field, wanted, observed, awake)
    return steps


def _change(field: str, wanted: Wanted, observed: Observed, awake: bool) -> list[Step]:
    """The change of one field, if it differs."""
    wants: t.Mapping[str, object] = wanted
    configs: t.Mapping[str, object] = observed.defined[0]
    want, config, live = wants.get(field), configs[field], observed.live
    if live is None:
        return [Step("change", field, config, want, NOW)] if config != want else []
    lives: t.Mapping[str, object] = live
    at_once = changes.when(field, live, want, awake) == LIVE and lives[field] != want
    if field == "display_password" and live["display"] == "none":
        at_once = False
    if at_once:
        # A value that only the running machine has is changed in both: before it was the running machine's.
        return [Step("change", field, lives[field], want, LIVE, changes.asks(field, live, want))]
    return [Step("change", field, config, want, NEXT_START)] if config != want else []


def _awake(observed: Observed, state: str) -> bool:
    """Whether the guest runs while its machine is changed, and afterwards."""
    return (
        observed.state == "running"
        and state in ("present", "running")
        or (observed.state == "paused" and state == "running")
    )


def _file_system(observed: Observed, steps: list[Step]) -> dict[str, str]:
    """Add the step in which the guest grows its file system with the disk, if its agent answers; returns what is
    ignored."""
    if not any(step.kind == "grow_disk" and step.when == LIVE for step in steps):
        return {}
    if not observed.agent or observed.state != "running":
        return {"grow_filesystem": "no agent answers in the guest: the file system grows at its next boot"}
    steps.append(Step("grow_filesystem"))
    return {}


def _disk_steps(wanted: Wanted, disk: Disk, when: str) -> list[Step]:
    size = wanted.get("disk")
    if size is None or size == disk.size:
        return []
    if size < disk.size:
        raise GridError(
            "cannot_shrink",
            f"the disk has {disk.size} bytes and would have to shrink to {size}",
            tried="change the disk's size",
            remedy="Order at least the size that it has; shrinking would lose data",
            current=disk.size,
            wanted=size,
        )
    return [Step("grow_disk", "disk", disk.size, size, when)]


def _first_boot(values: Metadata) -> dict[str, object]:
    """What a machine reads once: the fields of :data:`FIRST_BOOT_ONLY`, without an address that DHCP gives."""
    return {
        "packages": values["packages"],
        "users": values["users"],
        "address": in_seed(values["address"]),
    }


def _metadata_steps(wanted: Wanted, observed: Observed, steps: list[Step]) -> tuple[Metadata, dict[str, str]]:
    """Add the seed's and the metadata's steps; returns the metadata to be and what is ignored."""
    now = observed.defined[1]
    started = now["started"] or observed.state != "stopped"
    after = metadata.of_spec(wanted, now["started"])
    asleep = observed.state == "hibernated" and wanted.get("autostart") is not None
    after["autostart"] = bool(wanted["autostart"]) if asleep else now["autostart"]
    # Facts of the image, which an entry for a machine that exists need not repeat.
    if wanted.get("user") is None:
        after["user"] = now["user"]
    if wanted.get("python") is None:
        after["python"] = now["python"]
    before: t.Mapping[str, object] = now
    values = t.cast("t.Dict[str, object]", after)
    ignored = {}
    once, wanted_once = _first_boot(now), _first_boot(after)
    differing = [field for field in FIRST_BOOT_ONLY if once[field] != wanted_once[field]]
    if started:
        for field in differing:
            ignored[field] = "only applied at the first boot, which was"
            values[field] = before[field]
    if not observed.seed or (differing and not started):
        steps.append(Step("write_seed"))
    # The network's name changes with the interface.
    apart = {"network"} if any(step.field == "network" for step in steps) else set()
    for field in (*_FACTS, "autostart", "image", *FIRST_BOOT_ONLY):
        if before[field] != values[field] and field not in apart:
            when = LIVE if observed.live is not None else NOW
            steps.append(Step("metadata", field, before[field], values[field], when))
    return after, ignored


def _creation(
    wanted: Wanted, observed: Observed, layer: Disk | None, layer_path: str, pages: SizedExport | None
) -> list[Step]:
    """The steps to a machine that is not defined: with a new disk, or with one that is here already."""
    if observed.disk is None:
        return _new_disk(wanted, layer, pages)
    if observed.leftover:
        raise GridError(
            "disk_conflict",
            "two disks of this machine are here without its domain, and it is unknown which is newer",
            remedy="Look at both in its directory in the depot, and move one away",
        )
    if disk_base.paged_layer(observed.disk.backing) == wanted["image"]["digest"]:
        settling = [] if pages is not None else [Step(disk_base.SETTLE, "chain", observed.disk.backing, "layers")]
        return [Step("write_seed"), *_disk_steps(wanted, observed.disk, NOW), *settling, Step("define")]
    if observed.disk.backing != layer_path:
        raise GridError(
            "disk_conflict",
            f"a disk of this machine is here without its domain, on another image: {observed.disk.backing}",
            remedy="Order the machine with that image, or move the disk away",
        )
    return [Step("write_seed"), *_disk_steps(wanted, observed.disk, NOW), Step("define")]


def _new_disk(wanted: Wanted, layer: Disk | None, pages: SizedExport | None) -> list[Step]:
    refusals.refuse_vanished(wanted)
    if pages is not None:
        layer = Disk(pages["virtual_size"])
    if layer is not None and (wanted.get("disk") or layer.size) < layer.size:
        raise GridError(
            "disk_too_small",
            f"the image {wanted['image']['name']} needs a disk of {layer.size} bytes, ordered are {wanted['disk']}",
            remedy="Order a larger disk, or none to get the image's own size",
            minimum=layer.size,
            wanted=wanted["disk"],
        )
    return [Step("create_disk" if pages is None else "create_paging_disk"), Step("write_seed"), Step("define")]


def _paging_steps(wanted: Wanted, observed: Observed, missing: str | None) -> list[Step]:
    config, live = (model.get("pages") if model else None for model in (observed.config, observed.live))
    moves = disk_base.decide(config, live, observed.leftover, wanted.get("pages"), missing is None)
    return [Step(move.kind, "chain", move.before, move.after) for move in moves]


def decide_power(observed: Observed, state: str, discard: bool = False) -> Decision:
    """What to do where only the machine is named: change its power, or remove it.

    :raises GridError: ``machine_unknown``, ``stale_generation``.
    """
    copies.refuse_moving(observed.moving, observed.incoming)
    if state == "absent":
        return Decision([Step("remove")] if observed.config is not None or observed.files else [], "absent")
    if observed.config is None:
        raise GridError(
            "machine_unknown",
            "no such machine on this host",
            remedy="Deploy it: virtuoso.grid.deploy; or look where it is: virtuoso.grid.machine_info",
        )
    steps = _power(state, observed.state, observed.memory, discard)
    _require_disk(observed, steps)
    end = _end(state, observed.state)
    off = end in ("stopped", "hibernated") or state == "restarted"
    waiting = {} if off else pending(observed.config, observed.live)
    return Decision(steps, end, _not_kept(state, observed.state), waiting, observed.metadata)


def _require_disk(observed: Observed, steps: list[Step]) -> None:
    if not any(step.kind in ("start", "wake") for step in steps):
        return
    refusals.require_layers(observed.defined[1]["image"], observed.missing)
    if observed.disk is None:
        raise GridError(
            "disk_missing",
            "the machine is defined, but its disk is gone",
            remedy="Bring the file back; or remove the machine with state absent and deploy it anew, without its data",
        )


def decide(
    wanted: Wanted,
    observed: Observed,
    state: str,
    *,
    layer: Disk | None,
    layer_path: str,
    missing: str | None = None,
    layer_may_come: bool = False,
    discard: bool = False,
    grow_filesystem: bool = False,
) -> Decision:
    """What to do to have the machine as ``wanted`` and in power state ``state``.

    :param wanted: with ``cpu_shares`` as a number where the machine is defined.
    :param layer: the image's topmost layer on this host, ``None`` where it isn't here.
    :param layer_path: the path of that layer's file.
    :param missing: the digest of a layer of the image that isn't here.
    :param layer_may_come: whether a missing layer is no error: in check mode the step that brings it did nothing.
    :param discard: whether the memory of a hibernated machine may be lost.
    :param grow_filesystem: whether the guest grows its root file system with its disk.
    :raises GridError: ``machine_vanished``, ``image_missing``, ``disk_too_small``, ``disk_conflict``, ``disk_missing``,
        ``cannot_shrink``, ``cannot_change``, ``stale_generation``.
    """
    copies.refuse_moving(observed.moving, observed.incoming)
    if state == "absent":
        return decide_power(observed, state, discard)
    if observed.config is None:
        pages = wanted.get("pages") if missing is not None else None
        if pages is None and not layer_may_come:
            refusals.require_layers(wanted["image"], missing)
        steps = [*_creation(wanted, observed, layer, layer_path, pages), *_power(state, "absent")]
        end = _end(state, "absent")
        return Decision(steps, end, _not_kept(state, "absent"), {}, metadata.of_spec(wanted, False))
    refusals.refuse_fixed(wanted, observed.defined[1])
    steps = _changes(wanted, observed, _awake(observed, state))
    not_grown: dict[str, str] = {}
    if observed.disk is not None:
        refusals.refuse_hibernated(wanted, observed)
        steps += _disk_steps(wanted, observed.disk, LIVE if observed.live is not None else NOW)
        not_grown = _file_system(observed, steps) if grow_filesystem else {}
    steps += _paging_steps(wanted, observed, missing)
    after, ignored = _metadata_steps(wanted, observed, steps)
    power = _power(state, observed.state, observed.memory, discard)
    _require_disk(observed, power)
    waiting: Pending = {}
    if _end(state, observed.state) not in ("stopped", "hibernated") and state != "restarted":
        changed = [step for step in steps if step.kind == "change"]
        live = (
            _changed(observed.live, [step for step in changed if step.when == LIVE])
            if observed.live is not None
            else None
        )
        waiting = pending(_changed(observed.defined[0], changed), live)
    ignored.update({**not_grown, **_not_kept(state, observed.state)})
    return Decision([*steps, *power], _end(state, observed.state), ignored, waiting, after)


def _changed(model: MachineModel, steps: t.Iterable[Step]) -> MachineModel:
    """A model after these changes."""
    return t.cast(MachineModel, {**model, **{step.field: step.after for step in steps}})
