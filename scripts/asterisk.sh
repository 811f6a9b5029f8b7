#!/usr/bin/env bash
# A real Asterisk for the tests, kept in a root of its own so that it needs no package on this machine.
#
#   scripts/asterisk.sh install                                  once per machine, about three minutes
#   scripts/asterisk.sh start DIR AMI_PORT SIP_PORT [TLS_PORT]   returns when it can be logged in to
#   scripts/asterisk.sh cli DIR COMMAND...                       one command on its console
#   scripts/asterisk.sh restart DIR                              same ports, same database
#   scripts/asterisk.sh stop DIR                                 DIR stays, for a look at DIR/log
#   scripts/asterisk.sh kill DIR                                 the same without a goodbye, as a crash would be
#
# `install` wants root, `debootstrap` (`scripts/check.sh` asks apt for it) and a Debian mirror that apt knows.
#
# DIR holds all that belongs to one instance (settings, database, log, pid); any number may run at once.
# TLS_PORT needs DIR/tls/cert.pem and DIR/tls/key.pem. NARVARO_ASTERISK_ROOT chooses another place for the root.
set -euo pipefail

root=${NARVARO_ASTERISK_ROOT:-/var/cache/narvaro-asterisk/root}
templates=$(dirname "$(readlink -f "$0")")/../infra/asterisk
start_limit_secs=60
stop_limit_secs=10

die() {
    echo "error: $1" >&2
    [ $# -lt 2 ] || printf '\nhint: %s\n' "$2" >&2
    exit 1
}

usage() {
    sed -n '2,/^set -e/{/^#/s/^# \{0,1\}//p}' "$0" >&2
    exit 2
}

need_root() {
    [ "$(id -u)" = 0 ] || die "a root directory of its own needs the rights of root" "run it with \`sudo\`"
}

need_installed() {
    [ -x "$root/usr/sbin/asterisk" ] ||
        die "there is no Asterisk in \`$root\`" "run \`scripts/asterisk.sh install\` once"
}

# The mirror that apt is set up with; only `main` of Debian itself will do.
mirror() {
    apt-get indextargets --format '$(REPO_URI) $(ORIGIN) $(LABEL)' |
        awk '$2 == "Debian" && $3 == "Debian" { print $1; exit }'
}

# Safe to run again and to run twice at once: who comes second waits, and finds it done.
install() {
    need_root
    mkdir -p "$(dirname "$root")"
    exec 9>"$root.lock"
    flock 9
    if [ -x "$root/usr/sbin/asterisk" ]; then
        echo "Asterisk is in place: $(chroot "$root" asterisk -V)"
        return
    fi
    command -v debootstrap >/dev/null ||
        die "\`debootstrap\` is missing" "run \`apt-get install debootstrap\`, or \`scripts/check.sh\`, which does"
    [ ! -e "$root" ] || rmdir "$root" || die "\`$root\` is in the way" "name another place in NARVARO_ASTERISK_ROOT"
    local from proxy='' partial=$root.partial
    from=$(mirror)
    if [ -z "$from" ]; then
        apt-get update
        from=$(mirror)
    fi
    [ -n "$from" ] || die "apt knows no Debian mirror" "name one in \`/etc/apt/sources.list\`"
    eval "$(apt-config shell proxy Acquire::http::Proxy)"
    [ -z "$proxy" ] || export http_proxy=$proxy
    # Left by a run that was killed; one that fails clears up itself.
    rm -rf --one-file-system "$partial"
    trap 'rm -rf --one-file-system "$root.partial"' EXIT
    trap 'exit 130' INT TERM
    # debootstrap mounts /proc and /sys: in a namespace of its own, so that nothing stays mounted however it ends.
    unshare --mount --propagation private "$(readlink -f "$0")" build "$partial" "$from" ||
        die "Asterisk could not be installed" "read what is said above; \`$from\` is the mirror"
    # Renamed when whole: an interrupted installation is never taken for a good one.
    mv -T "$partial" "$root"
    echo "Installed $(chroot "$root" asterisk -V) in $root"
}

# The part of `install` that mounts.
build() {
    local partial=$1 from=$2
    mkdir -p "$partial"
    debootstrap --variant=minbase sid "$partial" "$from"
    # Mirrors may lag; the signatures are checked all the same.
    echo 'Acquire::Check-Valid-Until "false";' >"$partial/etc/apt/apt.conf.d/99lag"
    # The package must not start a service of its own.
    printf '#!/bin/sh\nexit 101\n' >"$partial/usr/sbin/policy-rc.d"
    chmod 755 "$partial/usr/sbin/policy-rc.d"
    chroot "$partial" apt-get update
    DEBIAN_FRONTEND=noninteractive chroot "$partial" \
        apt-get install -y --no-install-recommends asterisk
    chroot "$partial" apt-get clean
}

# Runs a command in the root, with DIR as /mnt. The mounts are in a namespace of their own and end with it.
inside() {
    local dir=$1
    shift
    # shellcheck disable=SC2016
    exec unshare --mount --propagation private sh -euc '
        mount --bind "$1" "$2/mnt"
        mount -t proc proc "$2/proc"
        cd /
        root=$2
        shift 2
        exec chroot "$root" "$@"' inside "$dir" "$root" "$@"
}

console() {
    local dir=$1
    shift
    (inside "$dir" asterisk -C /mnt/etc/asterisk.conf -rx "$*")
}

running() {
    local pid
    pid=$(cat "$1/pid" 2>/dev/null) || return 1
    # The pid may belong to somebody else by now, or to what is left until init takes note of its end.
    [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = asterisk ] &&
        ! grep -q '^State:[[:space:]]*Z' "/proc/$pid/status" 2>/dev/null
}

configure() {
    local dir=$1 file modules
    modules=$(cd "$root" && echo usr/lib/*/asterisk/modules)
    mkdir -p "$dir"/{etc,db,log,run,spool,tls}
    for file in "$templates"/*.conf; do
        sed -e "s|@MODULES@|/$modules|" -e "s|@AMI_PORT@|$2|" -e "s|@SIP_PORT@|$3|" \
            -e "s|@TLS@|$([ -n "${4:-}" ] && echo yes || echo no)|" -e "s|@AMI_TLS_PORT@|${4:-5039}|" \
            "$file" >"$dir/etc/$(basename "$file")"
    done
}

launch() {
    local dir=$1 limit=$((SECONDS + start_limit_secs))
    ! running "$dir" || die "an Asterisk runs in \`$dir\` already"
    chown -R "$(stat -c %u:%g "$root/var/lib/asterisk")" "$dir"
    rm -f "$dir/run/asterisk.ctl"
    (inside "$dir" asterisk -f -C /mnt/etc/asterisk.conf -U asterisk -G asterisk) \
        </dev/null >"$dir/log/console" 2>&1 &
    echo $! >"$dir/pid"
    until [ -S "$dir/run/asterisk.ctl" ] && console "$dir" core waitfullybooted >/dev/null 2>&1; do
        kill -0 "$(cat "$dir/pid")" 2>/dev/null ||
            die "Asterisk ended while it started" "read \`$dir/log\`; is one of the ports taken?"
        if [ "$SECONDS" -ge "$limit" ]; then
            stop "$dir"
            die "Asterisk did not start within $start_limit_secs s" "read \`$dir/log\`"
        fi
        sleep 0.1
    done
}

stop() {
    local dir=$1 signal=${2:-TERM} pid limit=$((SECONDS + stop_limit_secs))
    running "$dir" || { rm -f "$dir/pid"; return; }
    pid=$(cat "$dir/pid")
    kill "-$signal" "$pid" 2>/dev/null || true
    while running "$dir"; do
        [ "$SECONDS" -lt "$limit" ] || kill -KILL "$pid" 2>/dev/null || true
        sleep 0.05
    done
    rm -f "$dir/pid"
}

verb=${1:-}
[ -n "$verb" ] || usage
shift
case $verb in
install)
    [ $# = 0 ] || usage
    install
    exit
    ;;
build) # Only by `install`.
    [ $# = 2 ] || usage
    build "$@"
    exit
    ;;
start) [ $# -ge 3 ] && [ $# -le 4 ] || usage ;;
cli) [ $# -ge 2 ] || usage ;;
restart | stop | kill) [ $# = 1 ] || usage ;;
*) usage ;;
esac
need_root
need_installed
dir=$(readlink -f "$1") && [ -d "$dir" ] || die "there is no directory \`$1\`"
shift
case $verb in
start)
    configure "$dir" "$@"
    launch "$dir"
    ;;
cli) console "$dir" "$@" ;;
restart)
    stop "$dir"
    launch "$dir"
    ;;
stop) stop "$dir" ;;
kill) stop "$dir" KILL ;;
esac
