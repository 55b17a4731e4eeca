# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host on which a module is started once, and then does one thing after the other.

To start a module takes longer than what most steps of a move take. One that has gone, or could not be started, is
started for each step, as Ansible does.
"""

from __future__ import annotations

import contextlib
import gc
import typing as t

from ansible_collections.virtuoso.grid.plugins.plugin_utils._stations import Background, Result, Station

_NAME = "serve"


@contextlib.contextmanager
def no_collection() -> t.Iterator[None]:
    """No garbage is collected meanwhile. What Ansible makes of a module's sources when it packs them is little garbage
    and many objects, among which it would be looked for in vain again and again: without that a module is packed in two
    thirds of the time. What is there afterwards stays, as does all that a process of Ansible's for one task has; to
    look through it once more would take as long."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.freeze()
            gc.enable()


class Served:
    """In the place of a :class:`Station`, which has a caller. Not to be used from several threads.

    :param arguments: what the module is given at its start.
    """

    def __init__(self, station: Station, arguments: t.Mapping[str, t.Any]) -> None:
        self.name = station.name
        self._station = station
        self._number = 0
        self._work: Background | None = None
        self._dismissed = False
        if station.caller is not None:
            started = {**arguments, "step": "serve", "machines": [], "hold": station.caller.path(_NAME)}
            self._work = Background(lambda: station.run(started))

    @property
    def serves(self) -> bool:
        """Whether the module was started, and has not ended."""
        return self._work is not None and self._station.caller is not None and not self._work.over()

    def listen(self) -> None:
        """See whether the host listens to what is said; without that the module ends by itself."""
        self._station.listen()

    def dismiss(self) -> None:
        """Have the module end."""
        if self.serves and not self._dismissed:
            self._dismissed = True
            with contextlib.suppress(OSError):
                t.cast(t.Any, self._station.caller).say(f"{_NAME}.{self._number}", {})

    def close(self) -> None:
        """Have the module end, and wait for that a little: its connection is the host's."""
        self.dismiss()
        if self._dismissed:
            t.cast(Background, self._work).wait(1)
        self._station.close()

    def run(self, arguments: t.Mapping[str, t.Any]) -> Result:
        """Have it do this; what became of that."""
        caller, work = self._station.caller, self._work
        if caller is None or work is None or work.over():
            return self._station.run(arguments)
        number = self._number
        self._number += 1
        try:
            caller.say(f"{_NAME}.{number}", arguments)
        except OSError:
            # It ends with what it is told through.
            told = None
        else:
            told = caller.answer(number, work.over)
        if told is None:
            told = work.result()
            self._work = None
        # It has gone before it had the word: then nothing was done, and as Ansible gives a module again, so do we.
        return self._station.run(arguments) if (told.get("failure") or {}).get("code") == "not_called" else told

    def begin(self, name: str, arguments: t.Mapping[str, t.Any]) -> Ready:  # pylint: disable=unused-argument
        """What would have to be started early elsewhere is there."""
        return Ready(self, arguments)


def close_all(served: t.Collection[Served]) -> None:
    """Have all end, and only then wait for one after the other."""
    for each in served:
        each.dismiss()
    for each in served:
        each.close()


class Ready:
    """As :class:`_stations.Begun`: a step that only waits for its machines."""

    def __init__(self, served: Served, arguments: t.Mapping[str, t.Any]) -> None:
        self._served = served
        self._arguments = arguments

    def call(self, **values: t.Any) -> Result:
        """Have it do these; its result."""
        return self._served.run({**self._arguments, **values})

    def dismiss(self) -> None:
        """It isn't needed."""
