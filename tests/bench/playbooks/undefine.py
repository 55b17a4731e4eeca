# SPDX-License-Identifier: GPL-3.0-or-later
"""On the provider: print the benchmark's domains as JSON, then power them off and undefine them; their disks stay."""

import json
import sys

import libvirt

connection = libvirt.open("qemu:///system")
wanted = set(sys.argv[1:])
domains = [domain for domain in connection.listAllDomains() if domain.name() in wanted]
print(
    json.dumps([{"name": domain.name(), "xml": domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)} for domain in domains])
)
for domain in domains:
    if domain.isActive():
        domain.destroy()
    domain.undefine()
