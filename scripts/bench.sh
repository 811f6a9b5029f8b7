#!/usr/bin/env bash
# Measures what Närvaro promises about cost and speed (release build), and fails where a promise is not kept.
#
#   scripts/bench.sh          everything, about an hour after the build
#   scripts/bench.sh short    what scripts/check.sh runs: a load on a debug build, of which every change must arrive, a
#                             renewal of all, which must go on over a restart, and a minute in which replicas and Redis
#                             are killed, stopped and cut off; times are printed and not judged
#   scripts/bench.sh chaos    five minutes of that for each form of Redis, with 2,000 mailboxes (release build)
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
target=${CARGO_TARGET_DIR:-target}

case ${1:-all} in
short)
    # The whole workspace: with fewer packages Cargo would pick other features, and build dependencies once more for them.
    cargo build --locked --quiet --workspace --bins
    "$target/debug/narvaro-bench" turns --mailboxes 200 --rate 25 --lead-secs 15 --arrive-only
    "$target/debug/narvaro-bench" renew --mailboxes 300 --untimed
    "$target/debug/narvaro-bench" chaos --mailboxes 200 --rate 50 --minutes 0.75
    ;;
all)
    cargo build --locked --release -p narvaro -p narvaro-bench
    failed=
    for what in turns ack "ack --store redis" match renew wake load full-hour; do
        printf '\n=== %s ===\n' "$what"
        # shellcheck disable=SC2086 # a word each
        "$target/release/narvaro-bench" $what || failed=yes
    done
    [ -z "$failed" ]
    ;;
chaos)
    cargo build --locked --release -p narvaro -p narvaro-bench
    failed=
    for form in single sentinel cluster; do
        printf '\n=== chaos, %s ===\n' "$form"
        "$target/release/narvaro-bench" chaos --form "$form" || failed=yes
    done
    [ -z "$failed" ]
    ;;
*)
    echo "error: \`$1\` is none of \`all\`, \`short\` and \`chaos\`" >&2
    exit 2
    ;;
esac
