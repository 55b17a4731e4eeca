# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which hosts of a network are linked: a tree, always, and shortcuts that never flood (pure)."""

from __future__ import annotations

import typing as t

Edge = t.Tuple[str, str]
Latency = t.Callable[[str, str], t.Optional[float]]
Possible = t.Callable[[str, str], bool]

_UNKNOWN = 3600.0


def edge(one: str, other: str) -> Edge:
    """A link, whichever way it is looked at."""
    return (one, other) if one <= other else (other, one)


def spanning_tree(root: str, hosts: t.Collection[str], weight: t.Callable[[str, str], float | None]) -> set[Edge]:
    """Prim's algorithm from ``root``: the edges of a tree of least weight; what can't be reached is left out.

    :param weight: of an edge, ``None`` where it can't be. Equal weights are decided by names, so that the answer is
        always the same.
    """
    inside, found = {root}, set()
    while True:
        cut = [
            (seconds, one, other)
            for one in sorted(inside)
            for other in sorted(set(hosts) - inside)
            for seconds in [weight(one, other)]
            if seconds is not None
        ]
        if not cut:
            return found
        dummy, one, other = min(cut)
        inside.add(other)
        found.add(edge(one, other))


def tree_of(
    topology: str, home: str, hosts: t.Collection[str], site: t.Mapping[str, str], latency: Latency, possible: Possible
) -> set[Edge]:
    """The tree of a network.

    ``star``: the first host of each site is linked with the home, the others of the site with their first; where the
    home can't be reached directly, through whom it can. ``tree``: the tree of least latency.
    """
    first: dict[str, str] = {site.get(home, home): home}
    for host in sorted(hosts):
        first.setdefault(site.get(host, host), host)

    def weight(one: str, other: str) -> float | None:
        if not possible(one, other):
            return None
        seconds = latency(one, other)
        known = _UNKNOWN if seconds is None else seconds
        if topology == "tree":
            return known
        same_site = site.get(one, one) == site.get(other, other)
        wanted = (
            home in (one, other)
            and first[site.get(other, other)] == other
            and first[site.get(one, one)] == one
            and not same_site
        ) or (same_site and first[site.get(one, one)] in (one, other))
        # Whatever isn't of the star is only taken where there is no other way.
        return known if wanted else known + 2 * _UNKNOWN

    return spanning_tree(home, hosts, weight)


def reachable(root: str, edges: t.Iterable[Edge]) -> set[str]:
    """The hosts that flooding from ``root`` reaches."""
    around: dict[str, set[str]] = {}
    for one, other in edges:
        around.setdefault(one, set()).add(other)
        around.setdefault(other, set()).add(one)
    found, waiting = {root}, [root]
    while waiting:
        new = around.get(waiting.pop(), set()) - found
        found |= new
        waiting += new
    return found


def has_loop(edges: t.Iterable[t.Any]) -> bool:
    """Whether flooding over these edges would go round."""
    parent: dict[str, str] = {}

    def root(host: str) -> str:
        while parent.setdefault(host, host) != host:
            host = parent[host]
        return host

    for one, other, *dummy in edges:
        a, b = root(one), root(other)
        if a == b:
            return True
        parent[a] = b
    return False


def mesh_phases(now: t.Mapping[t.Any, str], wanted: t.Collection[t.Any]) -> list[dict[t.Any, str]]:
    """As :func:`phases`, where hosts are, or are to be, on a mesh: an EVPN network's VXLAN, on which each host reaches
    each.

    :param now: roles by key; a host's place on the mesh is the key ``("", host, "evpn")``: the mesh is one more node of
        the tree.
    :param wanted: keys.

    BGP takes over last and lets go first, for it may not see a MAC address both by itself and by a link that it doesn't
    know. Between, the mesh is a link as others are, which floods to all and learns. Roles beside those of
    :func:`phases`: ``evpn``, what BGP says; ``frozen``, what it said, while it is silent on all hosts; ``resting``, as
    ``standby``, and whatever was learned is forgotten; ``flooding``, which doesn't learn.

    The mesh brings what one host floods to all others: also to the host from which the frame came by a link that goes.
    That would take it for a frame of a machine elsewhere, and lose its own machine until that speaks the next time. So
    nobody learns by the mesh before all have given up the old links.
    """
    final = {key: "evpn" if key[0] == "" else "tree" for key in wanted}
    coming = {key for key in final if now.get(key) != final[key]}
    going = set(now) - set(final)
    if not coming or not going:
        return [final]
    stay = {key: role for key, role in final.items() if key not in coming}
    silent = {key for key in going if now[key] in ("evpn", "frozen")}
    found = []
    if silent:
        # Taps are there from the beginning: what their keys are for must be in every part.
        taps = {key: "standby" for key in coming if key[2] == "ssh" and key not in now}
        found.append({**taps, **now, **dict.fromkeys(silent, "frozen")})
    # After an interruption new links may flood already: then no old one does any more.
    if not any(now.get(key) not in (None, "standby") for key in coming):
        found.append({**stay, **dict.fromkeys(going, "tree"), **dict.fromkeys(coming, "standby")})
    found.append({**stay, **dict.fromkeys(going | coming, "standby")})
    if any(key[0] == "" for key in coming):
        found.append({**stay, **dict.fromkeys(going, "resting"), **dict.fromkeys(coming, "flooding")})
    found.append({**stay, **dict.fromkeys(going, "resting"), **dict.fromkeys(coming, "tree")})
    flooding = {**stay, **dict.fromkeys(coming, "tree")}
    return [*found, flooding, final] if flooding != final else [*found, final]


def phases(now: t.Collection[t.Any], wanted: t.Collection[t.Any]) -> list[dict[t.Any, str]]:
    """From one tree to another without a loop and, for what is known by address, without a moment between: each phase
    is done everywhere before the next.

    Roles: ``tree`` floods and learns; ``standby`` carries only what is sent to it by a learned or static entry.

    1. The new links come up, standing by. 2. Those that go stop flooding: what their bridges have learned still uses
    them. 3. The new ones flood, and the old ones go. Where nothing goes, one phase is enough.
    """
    old, new = set(now), set(wanted)
    final = dict.fromkeys(new, "tree")
    going, coming = old - new, new - old
    if not going or not coming:
        return [final]
    stay = dict.fromkeys(old & new, "tree")
    return [
        {**stay, **dict.fromkeys(going, "tree"), **dict.fromkeys(coming, "standby")},
        {**stay, **dict.fromkeys(going | coming, "standby")},
        final,
    ]
