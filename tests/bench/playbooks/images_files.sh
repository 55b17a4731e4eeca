#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Files for the peers in directory $1, of the image $2: version 1 as raw disk and as qcow2; version 2, with 80 MiB of noise and 85 MiB
# that version 1 has elsewhere, as raw disk, as qcow2 and as an overlay on version 1.
set -eu
mkdir -p "$1"
cd "$1"
qemu-img convert -f qcow2 -O raw "$2" 1.raw
qemu-img convert -f qcow2 -O qcow2 "$2" 1.qcow2
qemu-img create -q -f qcow2 -b 1.qcow2 -F qcow2 overlay.qcow2
head -c 80M /dev/urandom >noise
# From where the root file system's data lie
dd if=1.raw of=moved bs=1M skip=150 count=85 status=none
qemu-io -f qcow2 -c "write -s noise 1700M 80M" -c "write -s moved 1800M 85M" overlay.qcow2 >/dev/null
qemu-img convert -f qcow2 -O raw overlay.qcow2 2.raw
qemu-img convert -f qcow2 -O qcow2 overlay.qcow2 2.qcow2
rm noise moved
touch ready
