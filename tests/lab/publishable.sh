#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Whether the collection could be published as it is: Galaxy's importer takes the built archive, and the documentation of
# every plugin, role and module is complete. A warning is a failure.
set -euo pipefail
cd "$(dirname "$0")/../.."
checkout=$(pwd -P)
tests/lab/setup.sh publish >build/publishable.log
export PATH=$checkout/build/publish/bin:$PATH
export GALAXY_IMPORTER_CONFIG=$checkout/tests/lab/galaxy-importer.cfg

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
.venv/bin/ansible-galaxy collection build --force --output-path "$work" . >>build/publishable.log

# It writes its result into the folder in which it runs.
(cd "$work" && python -m galaxy_importer.main ./*.tar.gz) >"$work/importer.log" 2>&1 || true
cat "$work/importer.log" >>build/publishable.log
if grep -E '^(ERROR|WARNING|CRITICAL)' "$work/importer.log"; then
    echo "publishable: Galaxy's importer doesn't take the archive as it is (all it said: build/publishable.log)" >&2
    exit 1
fi
grep -q 'Importer processing completed successfully' "$work/importer.log" || { cat "$work/importer.log" >&2; exit 1; }

ANSIBLE_COLLECTIONS_PATH=$checkout/build/collections antsibull-docs lint-collection-docs --plugin-docs \
    build/collections/ansible_collections/virtuoso/grid
