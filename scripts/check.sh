#!/usr/bin/env bash
# Checks everything, as CI does: installs what is missing, then format, lints, dependencies, all tests, documents, the
# demo, and a short run under load and faults. Ends with a table; not with 0 if anything failed.
#
#   scripts/check.sh            everything
#   scripts/check.sh NAME...    only these sections, in the order below
#
# Made for a Debian 12 on which only the Rust toolchain was installed. What else is needed comes by apt, and is asked
# for only if it is missing; that, and the Asterisk that the tests run, need root (or a `sudo` that does not ask).
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."

sections=(packages toolchain format scripts lints dependencies asterisk tests redis documents demo load)

# The release that is installed where there is none; a few minutes of compiling, once per machine.
cargo_deny=0.20.2

# What the tests said last.
test_log=${CARGO_TARGET_DIR:-target}/check-tests.log

# One line each: command or file that shows it is there, package that brings it.
packages=(
    "/usr/bin/cc gcc"
    "/usr/include/stdio.h libc6-dev"
    "/etc/ssl/certs/ca-certificates.crt ca-certificates"
    "/usr/sbin/debootstrap debootstrap"
    "/usr/sbin/nginx nginx-light"
    "/usr/bin/shellcheck shellcheck"
    "/usr/bin/redis-server redis-server"
    "/usr/bin/redis-sentinel redis-sentinel"
    "/usr/bin/redis-cli redis-tools"
)

die() {
    echo "error: $1" >&2
    [ $# -lt 2 ] || printf '\nhint: %s\n' "$2" >&2
    exit 1
}

# Everything below runs as root, also where it was started by somebody who may `sudo`: theirs stays theirs.
become_root() {
    [ "$(id -u)" != 0 ] || return 0
    sudo -n true 2>/dev/null ||
        die "apt and the tests' Asterisk need root" "run this as root, or as somebody who may \`sudo\` without a password"
    exec sudo env "PATH=$PATH" "HOME=$HOME" "CARGO_HOME=${CARGO_HOME:-$HOME/.cargo}" \
        "RUSTUP_HOME=${RUSTUP_HOME:-$HOME/.rustup}" "CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}" \
        "NARVARO_CHECK_FOR=$(id -u):$(id -g)" "$PWD/scripts/check.sh" "$@"
}

give_back() {
    [ -n "${NARVARO_CHECK_FOR:-}" ] || return 0
    chown -R "$NARVARO_CHECK_FOR" "$CARGO_TARGET_DIR" "$CARGO_HOME"
}

packages() {
    local missing=() entry shown package
    for entry in "${packages[@]}"; do
        read -r shown package <<<"$entry"
        # A compiler may be anywhere on the path.
        [ -e "$shown" ] || command -v "$(basename "$shown")" >/dev/null || missing+=("$package")
    done
    if [ "${#missing[@]}" = 0 ]; then
        echo "Nothing is missing."
        return
    fi
    echo "Installing ${missing[*]}"
    command -v apt-get >/dev/null ||
        die "${missing[*]} missing, and there is no apt" "install them by other means; this script knows Debian only"
    # No package may start a service of its own on this machine.
    local policy=/usr/sbin/policy-rc.d made=
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod 755 $policy
        made=yes
    fi
    local installed=yes
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null; } || installed=
    [ -z "$made" ] || rm -f $policy
    [ -n "$installed" ] || die "apt could not install ${missing[*]}" "its words are above; try again, or install them by hand"
}

toolchain() {
    command -v cargo >/dev/null || die "there is no \`cargo\`" "install Rust: https://rustup.rs"
    local part
    for part in fmt clippy; do
        cargo $part --version >/dev/null 2>&1 && continue
        command -v rustup >/dev/null || die "\`cargo $part\` is missing, and there is no rustup to add it"
        rustup component add "$([ $part = fmt ] && echo rustfmt || echo clippy)"
    done
    cargo --version
}

format() {
    cargo fmt --all --check
}

scripts() {
    shellcheck --severity=warning scripts/*.sh .ci/run
}

lints() {
    cargo clippy --workspace --all-targets --locked -- -D warnings
}

# Advisories are in a database on the internet; a machine that may not fetch it says so.
dependencies() {
    cargo deny --version >/dev/null 2>&1 || cargo install --locked "cargo-deny@$cargo_deny"
    cargo deny --locked check --hide-inclusion-graph bans licenses sources
    if timeout 120 cargo deny --locked fetch db; then
        cargo deny --locked check --hide-inclusion-graph --disable-fetch advisories
    else
        echo
        echo "NOTE: ADVISORIES WERE NOT CHECKED: their database cannot be fetched from here."
    fi
}

asterisk() {
    scripts/asterisk.sh install
}

tests() {
    mkdir -p "$(dirname "$test_log")"
    rm -f "$test_log" "$test_log-redis"
    cargo test --workspace --locked --no-fail-fast 2>&1 | tee "$test_log"
}

# The whole service once more, its store in Redis: what does not start one of its own anyway.
redis() {
    mkdir -p "$(dirname "$test_log")"
    rm -f "$test_log-redis"
    NARVARO_TEST_ON_REDIS=1 cargo test --locked --no-fail-fast --test it -- --skip store_contract --skip redis_ \
        --skip killed --skip month --skip asterisk --skip readme --skip architecture --skip moving --skip replicas \
        2>&1 | tee "$test_log-redis"
}

documents() {
    # Private items are documented too, so links to them lead somewhere.
    RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" cargo doc --workspace --no-deps --document-private-items --locked
}

demo() {
    timeout 900 scripts/demo.sh --once
}

# HOOK: the short run under load and with faults, made by the package `narvaro-bench`.
load() {
    if [ ! -x scripts/bench.sh ]; then
        echo "NOTE: NOTHING WAS RUN HERE: \`scripts/bench.sh\` is not part of this tree yet."
        return
    fi
    timeout 900 scripts/bench.sh short
}

# --- running and counting ---

names=()
seconds=()
results=()
failed=

run() {
    local name=$1 began=$SECONDS result=PASS
    printf '\n=== %s ===\n' "$name"
    # A shell of its own, so that `set -e` holds inside; what follows runs all the same.
    "$PWD/scripts/check.sh" --section "$name" || result=FAIL
    [ $result = PASS ] || failed=yes
    names+=("$name")
    seconds+=($((SECONDS - began)))
    results+=("$result")
}

table() {
    printf '\n%-14s %8s  %s\n' section seconds result
    local index
    for index in "${!names[@]}"; do
        printf '%-14s %8d  %s\n' "${names[$index]}" "${seconds[$index]}" "${results[$index]}"
    done
    printf '%-14s %8d  %s\n' all "$SECONDS" "$([ -n "$failed" ] && echo FAIL || echo PASS)"
}

# All test programs together, as the last line.
total() {
    [[ " ${names[*]} " == *" tests "* ]] && [ -e "$test_log" ] || return 0
    local logs=("$test_log")
    [ ! -e "$test_log-redis" ] || logs+=("$test_log-redis")
    printf '\n'
    awk '/^test result: / { passed += $4; failed += $6; ignored += $8 }
        END { printf "%d passed, %d failed, %d skipped\n", passed, failed, ignored }' "${logs[@]}"
}

known() {
    local name
    for name in "${sections[@]}"; do [ "$name" != "$1" ] || return 0; done
    die "there is no section \`$1\`" "the sections: ${sections[*]}"
}

if [ "${1:-}" = --section ]; then
    known "$2"
    "$2"
    exit
fi

for name in "$@"; do known "$name"; done
become_root "$@"
trap give_back EXIT
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-auto}
# Every part is compiled once: what would speed the next time up takes a gigabyte here.
export CARGO_INCREMENTAL=${CARGO_INCREMENTAL:-0}
for name in "${sections[@]}"; do
    [ $# = 0 ] || [[ " $* " == *" $name "* ]] || continue
    run "$name"
    # Without these nothing else can be said.
    case $name in packages | toolchain) [ -z "$failed" ] || break ;; esac
done
table
total
[ -z "$failed" ]
