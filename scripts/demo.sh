#!/usr/bin/env bash
# Shows Närvaro at work: builds it, runs it on its embedded store against the shipped stand-ins for Microsoft 365
# and a PBX, tells the story of one event as it happens, with measured times, and says where to look.
#
#   scripts/demo.sh          tells the story, then keeps running until Ctrl-C
#   scripts/demo.sh --once   tells the story, checks every step, and ends: 0 if all held
#
# Needs the Rust toolchain and nothing else: ports are free ones, files are in a temporary folder that goes with it.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."

# The whole workspace: with fewer packages Cargo would pick other features, and build dependencies once more for them.
cargo build --locked --workspace --bins
exec "${CARGO_TARGET_DIR:-target}/debug/narvaro-demo" "$@"
