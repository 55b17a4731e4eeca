# SPDX-License-Identifier: GPL-3.0-or-later
"""On the provider: define the domains of a JSON file, or undefine them (second argument absent)."""

import json
import sys

import libvirt

connection = libvirt.open("qemu:///system")
with open(sys.argv[1], encoding="utf-8") as file:
    wanted = json.load(file)
there = {domain.name(): domain for domain in connection.listAllDomains()}
for entry in wanted:
    if sys.argv[2] == "present":
        connection.defineXML(entry["xml"])
    elif entry["name"] in there:
        there[entry["name"]].undefine()
