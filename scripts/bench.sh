#!/usr/bin/env bash
# Measures what Närvaro promises about cost and speed (release build), and fails where a promise is not kept.
#
#   scripts/bench.sh          everything, about twenty minutes after the build
#   scripts/bench.sh short    what scripts/check.sh runs: a load on a debug build, of which every change must arrive, and
#                             a renewal of all, which must go on over a restart; times are printed and not judged
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
target=${CARGO_TARGET_DIR:-target}

case ${1:-all} in
short)
    # The whole workspace: with fewer packages Cargo would pick other features, and build dependencies once more for them.
    cargo build --locked --quiet --workspace --bins
    "$target/debug/narvaro-bench" turns --mailboxes 200 --rate 25 --lead-secs 15 --arrive-only
    "$target/debug/narvaro-bench" renew --mailboxes 300 --untimed
    ;;
all)
    cargo build --locked --release -p narvaro -p narvaro-bench
    failed=
    for what in turns ack match renew; do
        printf '\n=== %s ===\n' "$what"
        "$target/release/narvaro-bench" "$what" || failed=yes
    done
    [ -z "$failed" ]
    ;;
*)
    echo "error: \`$1\` is neither \`all\` nor \`short\`" >&2
    exit 2
    ;;
esac
