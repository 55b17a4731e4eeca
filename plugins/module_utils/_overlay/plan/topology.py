# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which hosts of a network are linked with each other, and how to get from one set of links to another (pure).

The links always form a tree; shortcuts beside it never flood.
"""

from __future__ import annotations

import typing as t

Edge = t.Tuple[str, str]
"""Two hosts, in alphabetical order."""
LinkKey = t.Tuple[str, str, str]
"""A link: its two hosts and its transport. While one transport replaces another, both links are there."""
Key = t.TypeVar("Key")
Latency = t.Callable[[str, str], t.Optional[float]]
Possible = t.Callable[[str, str], bool]

_UNKNOWN = 3600.0


def edge(one: str, other: str) -> Edge:
    """The edge between two hosts, the same for either order."""
    return (one, other) if one <= other else (other, one)


def spanning_tree(root: str, hosts: t.Collection[str], weight: t.Callable[[str, str], float | None]) -> set[Edge]:
    """The edges of a tree of least weight, by Prim's algorithm from ``root``. Hosts that can't be reached are left out.

    :param weight: of an edge; ``None`` where there can't be one. Between equal weights the names decide, so that the
        result is always the same.
    """
    inside: set[str] = {root}
    found: set[Edge] = set()
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

    ``star``: the first host of each site is linked with the home, the others of a site with its first; a host that
    can't reach its place directly is linked through another. ``tree``: the tree of least latency.

    :param site: by host. :param latency: seconds between two hosts, ``None`` where unknown.
    :param possible: whether two hosts can be linked.
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
        # An edge that doesn't belong to the star is used only where there is no other way.
        return known if wanted else known + 2 * _UNKNOWN

    return spanning_tree(home, hosts, weight)


def reachable(root: str, edges: t.Iterable[Edge]) -> set[str]:
    """The hosts that frames flooded by ``root`` reach."""
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


def has_loop(edges: t.Iterable[t.Sequence[str]]) -> bool:
    """Whether frames flooded over these edges, or links, would go round."""
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


def mesh_phases(now: t.Mapping[LinkKey, str], wanted: t.Collection[LinkKey]) -> list[dict[LinkKey, str]]:
    """Like :func:`phases`, where hosts are on a mesh before or after. A mesh is an EVPN network's VXLAN, on which every
    host reaches every other.

    The mesh is one more node of the tree, without a name; a host's place on it is the link ``("", host, "evpn")``.

    BGP takes over last and lets go first: it must not see a MAC address both by itself and by a link that it doesn't
    know. In between the mesh is like other links: it floods to all and learns. Roles beside those of :func:`phases`:
    ``evpn``: BGP sets the forwarding entries. ``frozen``: BGP's entries stay, while it is stopped on all hosts.
    ``resting``: like ``standby``, and what was learned is forgotten. ``flooding``: floods without learning.

    The mesh brings a flooded frame to all hosts, also to the one from which it came by an old link. That host would
    learn that its own machine is elsewhere, and lose it until the machine sends again. So no host learns by the mesh
    before all have given up the old links.

    :param now: roles by link. :param wanted: links.
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
        # Taps are in every part from the beginning, because their keys must be.
        taps = {key: "standby" for key in coming if key[2] == "ssh" and key not in now}
        found.append({**taps, **now, **dict.fromkeys(silent, "frozen")})
    # After an interruption new links may flood already; then no old one does any more.
    if not any(now.get(key) not in (None, "standby") for key in coming):
        found.append({**stay, **dict.fromkeys(going, "tree"), **dict.fromkeys(coming, "standby")})
    found.append({**stay, **dict.fromkeys(going | coming, "standby")})
    if any(key[0] == "" for key in coming):
        found.append({**stay, **dict.fromkeys(going, "resting"), **dict.fromkeys(coming, "flooding")})
    found.append({**stay, **dict.fromkeys(going, "resting"), **dict.fromkeys(coming, "tree")})
    flooding = {**stay, **dict.fromkeys(coming, "tree")}
    return [*found, flooding, final] if flooding != final else [*found, final]


def phases(now: t.Collection[Key], wanted: t.Collection[Key]) -> list[dict[Key, str]]:
    """The phases that lead from one tree to another: the role of each link. Each phase is done on all hosts before the
    next. There is never a loop, and traffic to learned addresses is never interrupted.

    Roles: ``tree`` floods and learns; ``standby`` carries only frames for learned or static entries.

    1. New links come up in ``standby``. 2. Old links stop flooding; learned entries still use them. 3. New links flood,
    and old links are removed. Where no link is removed, one phase suffices.
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
