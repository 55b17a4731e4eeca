# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the options in C(_argspec.FIND): a question to the information service."""

from __future__ import annotations


class ModuleDocFragment:
    """What is asked, what must hold, how long it may take."""

    DOCUMENTATION = r"""
options:
  of:
    description:
      - The kind of object. A V(host) is a provider, a home or a machine alike.
      - The columns of each kind are in the collection's C(docs/information.md).
    type: str
    choices: [host, provider, machine, home, site, network, image, link, device]
    default: host
  where:
    description:
      - Conditions that each object must meet, such as C(memory >= 1 GiB), C(site in north, south), C(name like web%),
        C(owner is known).
      - Operators are C(==), C(!=), C(<), C(<=), C(>), C(>=), C(in), C(not in), C(like) (in any case of letters), C(is
        known), C(is unknown). A condition is also a mapping of C(column), C(operator) and C(value).
    type: list
    elements: raw
    default: []
  size:
    description: How many different objects make an answer; more than one is a set.
    type: int
    default: 1
  members:
    description:
      - Instead of O(of), O(where) and O(size), a set of several kinds. A mapping of names to C(of) and C(where) of
        each.
    type: dict
  same:
    description: Columns that must have one known value for all members of a set.
    type: list
    elements: str
    default: []
  different:
    description: Columns that must have another known value for each member of a set.
    type: list
    elements: str
    default: []
  sum:
    description: Bounds of sums over a set, such as C(memory >= 512 MiB). Bounds are met, too, by the value itself with
      C(<=) and C(>=).
    type: list
    elements: raw
    default: []
  join:
    description: Comparisons between O(members), such as C(guest.memory <= host.memory_available).
    type: list
    elements: str
    default: []
  order:
    description:
      - What answers are ordered by, a column, C(-column) for the largest first, C(sum(column)) over a set or
        C(member.column).
      - A sample is ordered in itself; it isn't sure to have the first of all.
    type: list
    elements: str
    default: []
  limit:
    description: How many answers to return at most.
    type: int
    default: 100
  include:
    description:
      - What hosts to look at, those that are V(physical), V(virtual), or V(future), which are ordered and don't exist
        yet.
      - If left out, all that exist, and nothing is told of their nature.
    type: list
    elements: str
    choices: [virtual, physical, future]
  scope:
    description:
      - Only hosts near a site, C(near), the name of a site or of a host at it; and C(latency), for example V(20 ms),
        how far other sites may be by the newest measurement. Without it only the site itself is near, and a site that
        was never measured is not.
    type: dict
  within:
    description: When to end, for example V(1 s). What was found by then is returned. If left out, there is no deadline.
    type: str
  method:
    description:
      - V(exact) goes through all sets. V(sample) draws valid ones at random until there are O(limit) of them, or, with
        O(order), twenty times as many.
      - V(auto) goes through all sets where there are few, or else takes a sample. Questions of single objects are
        always answered exactly by it.
    type: str
    choices: [exact, sample, auto]
    default: auto
  seed:
    description: Makes a sample repeatable, on the same store and with time enough. The one that was used is returned.
    type: int
  columns:
    description: What to return of each object, beside its uuid. By default its name, site and all columns that the
      question names.
    type: list
    elements: str
  sql:
    description:
      - Instead of all conditions, one SELECT in the database's own SQL. Whatever would write is refused by the
        database.
    type: str
  columns:
    description: What to return of each object, beside its uuid. By default its name, site and all columns that the
      question names.
    type: list
    elements: str
  sql:
    description:
      - Instead of all conditions, one SELECT in the database's own SQL. Whatever would write is refused by the
        database.
    type: str
"""
