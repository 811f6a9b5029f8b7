#!/usr/bin/env bash
# A simulated month of faults for 1,000 mailboxes, at whose end presence has to equal the calendars, and before it a
# quiet month of some of them; prints the figures of both. What it is and promises: tests/it/month/mod.rs.
#
#   scripts/month.sh          with the usual seed
#   scripts/month.sh SEED     with another one; a seed replays the same edits and faults
#
# NARVARO_MONTH_MAILBOXES and NARVARO_MONTH_DAYS make it smaller.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
[ $# = 0 ] || export NARVARO_MONTH_SEED=$1
exec cargo test --locked --profile month --test it -- --ignored --exact --nocapture --test-threads 1 \
    month::b3_a_quiet_month_of_a_hundred_mailboxes month::b1_b2_a_month_of_a_thousand_mailboxes
