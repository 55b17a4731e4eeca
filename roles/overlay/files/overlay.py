# SPDX-License-Identifier: GPL-3.0-or-later
"""Made by the role virtuoso.grid.overlay: brings this host to its part of the networks, or back to the one before."""

import sys

from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.host.apply import main

sys.exit(main(sys.argv[1:]))
