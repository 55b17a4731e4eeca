# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the options of a question to the information service (``_argspec.FIND``)."""

from __future__ import annotations


class ModuleDocFragment:
    """The options of the module and the lookup ``find``."""

    DOCUMENTATION = r"""
options:
  of:
    description:
      - The kind of object. A V(host) is a provider, a home or a machine.
      - The columns of each kind are in the collection's C(docs/information.md).
    type: str
    choices: [host, provider, machine, home, site, network, image, link, device]
    default: host
  where:
    description:
      - Conditions that each object must meet, such as C(memory >= 1 GiB), C(site in north, south), C(name like web%),
        C(owner is known).
      - Operators are C(==), C(!=), C(<), C(<=), C(>), C(>=), C(in), C(not in), C(like) (which ignores case), C(is
        known), C(is unknown). A condition is also a mapping of C(column), C(operator) and C(value).
    type: list
    elements: raw
    default: []
  size:
    description: The number of different objects in an answer. More than one make a set.
    type: int
    default: 1
  members:
    description:
      - The members of a set of several kinds, instead of O(of), O(where) and O(size). A mapping from the name of each
        member to its C(of) and C(where).
    type: dict
  same:
    description: Columns that must have the same known value for all members of a set.
    type: list
    elements: str
    default: []
  different:
    description: Columns that must have a different known value for each member of a set.
    type: list
    elements: str
    default: []
  sum:
    description: Bounds of sums over a set, such as C(memory >= 512 MiB).
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
      - What answers are ordered by. A column, C(-column) for the largest first, C(sum(column)) over a set, or
        C(member.column).
      - A sample is ordered, but the first of all answers may not be in it.
    type: list
    elements: str
    default: []
  limit:
    description: The maximum number of answers to return.
    type: int
    default: 100
  include:
    description:
      - Which hosts to look at. V(physical) ones, V(virtual) ones, or V(future) ones, which are ordered and don't exist
        yet.
      - By default all hosts that exist. Answers then don't show which of them are virtual.
    type: list
    elements: str
    choices: [virtual, physical, future]
  scope:
    description:
      - Only hosts near a site. C(near) is the name of the site or of a host there. C(latency), for example V(20 ms), is
        the most that the newest measured latency of other sites may be; a site without a measurement is not near.
      - Without C(latency) only the site itself is near.
    type: dict
  within:
    description: The deadline, for example V(1 s). What was found by then is returned. By default there is none.
    type: str
  method:
    description:
      - V(exact) goes through all sets. V(sample) draws valid sets at random until it has O(limit) of them, or twenty
        times as many with O(order).
      - V(auto) goes through all sets if there are few, and else takes a sample. Questions about single objects are
        always answered exactly.
    type: str
    choices: [exact, sample, auto]
    default: auto
  seed:
    description: Makes a sample repeatable, on the same store and with enough time. The result has the seed that was
      used.
    type: int
  columns:
    description: The columns to return of each object, in addition to its uuid. By default its name, its site and all
      columns that the question names.
    type: list
    elements: str
  sql:
    description:
      - One SELECT in the database's own SQL, instead of all conditions. The database refuses everything that would
        write.
    type: str
"""
