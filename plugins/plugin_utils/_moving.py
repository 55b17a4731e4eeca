# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All steps of one journey in one task: each step on its host, in their order; the one that comes next is started while
the one before it works."""

from __future__ import annotations

import contextlib
import threading
import typing as t

from ansible.utils.display import Display
from ansible_collections.virtuoso.grid.plugins.module_utils._migration import steps
from ansible_collections.virtuoso.grid.plugins.plugin_utils._stations import Background, Begun, Station

Result = t.Dict[str, t.Any]
View = t.Mapping[str, t.Any]


class Held:
    """A context that is entered in the background, and left when it isn't needed any more."""

    def __init__(self, context: t.ContextManager[str]) -> None:
        self._ready, self._over = threading.Event(), threading.Event()
        self._value: str | None = None

        def work() -> Result:
            try:
                with context as self._value:
                    self._ready.set()
                    self._over.wait()
            finally:
                self._ready.set()
            return {}

        self._work = Background(work)

    def value(self) -> str | None:
        """What the context gives; ``None`` where it failed."""
        self._ready.wait()
        return self._value

    def leave(self) -> None:
        """Have it end; that is not waited for."""
        self._over.set()

    def close(self) -> Result:
        """Wait for its end; what went wrong."""
        self._over.set()
        return self._work.result()


class Ways:
    """What leads from sources to their targets' libvirts. Not to be used from several threads but for :meth:`take`.

    :param make: makes the context whose value is a target's socket, of the names of source and target.
    """

    def __init__(self, make: t.Callable[[str, str], t.ContextManager[str]]) -> None:
        self._make = make
        self._begun: dict[tuple[str, str], Held] = {}

    def expect(self, pairs: t.Iterable[tuple[str, str]]) -> None:
        """Begin to make these, because they will probably be needed: it takes as long as to look at the machines."""
        for pair in pairs:
            self._begun[pair] = Held(self._make(*pair))

    def take(self, source: str, target: str) -> Held:
        """One; whoever takes it closes it."""
        begun = self._begun.pop((source, target), None)
        return begun or Held(self._make(source, target))

    def close(self) -> None:
        """What was begun and not needed ends; that is not waited for longer than it takes."""
        for begun in self._begun.values():
            begun.leave()
        for begun in self._begun.values():
            begun.close()
        self._begun.clear()


class Trip:
    """One journey, from the statuses that its machines have to those that they come to. The stations are open, and stay
    so.

    :param arguments: by step, what its module is given beside the machines.
    :param way: begins to make the socket of the target's libvirt, or has begun.
    :param again: what is tried where the target can't reach the source: a step's arguments and its first result, to the
        result.
    """

    def __init__(
        self,
        journey: View,
        stations: t.Mapping[str, Station],
        arguments: t.Mapping[str, View],
        way: t.Callable[[], Held],
        again: t.Callable[[View, Result], Result],
        order: t.Sequence[str] = steps.ORDER,
    ) -> None:
        self.journey: Result = dict(journey)
        self._stations = stations
        self._arguments = arguments
        self._way = way
        self._again = again
        self._order = order
        self._early: dict[str, Begun] = {}
        self._tunnel: Held | None = None

    def run(self) -> Result:
        """Make it; the journey as it is then."""
        with contextlib.ExitStack() as stack:
            if "send" in self._order and steps.leaves_live(self.journey):
                self._tunnel = self._way()
                stack.callback(self._tunnel.close)
            # The first one needs no other before it; what it takes to listen is waited for while it works.
            first = next((step for step in self._order if steps.entries(self.journey, step)), None)
            for step in self._order:
                self._step(step, step == first)
            for begun in self._early.values():
                begun.dismiss()
        return self.journey

    def _step(self, step: str, first: bool) -> None:
        entries = steps.entries(self.journey, step)
        if not entries:
            return
        station = self._stations[steps.END[step]]
        Display().v(f"{station.name}: {step}: {', '.join(str(entry['name']) for entry in entries)}")
        values: Result = {"machines": entries}
        if step == "send" and self._tunnel is not None:
            values["socket"] = self._tunnel.value()
        if "socket" in values and not values["socket"]:
            result = t.cast(Held, self._tunnel).close()
        else:
            # What comes after a step is started when the step itself works: to start them all at once would only slow
            # the first.
            work = Background(lambda: self._worked(station, step, values))
            if first:
                for each in self._stations.values():
                    each.listen()
            following = steps.following(self.journey, step)
            if following in self._order:
                self._early[str(following)] = self._stations[steps.END[str(following)]].begin(
                    str(following), self._arguments[str(following)]
                )
            result = work.result()
        if step == "receive":
            result = self._again({**self._arguments[step], **values}, result)
        if step == "send" and self._tunnel is not None:
            self._tunnel.leave()
        key = f"{self.journey['source']}>{self.journey['target']}"
        self.journey = steps.advance([self.journey], step, {key: result})[0]

    def _worked(self, station: Station, step: str, values: Result) -> Result:
        early = self._early.pop(step, None)
        return early.call(**values) if early else station.run({**self._arguments[step], **values})
