#!/bin/sh
# Run a command in silence; print what it printed only if it fails, and end with its status.
# Usage: quietly.sh "what is being done" COMMAND...
what=$1
shift
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT
trap 'exit 130' INT TERM
"$@" >"$log" 2>&1
status=$?
if [ "$status" -ne 0 ]; then
    echo "failed ($status): $what: $*" >&2
    cat "$log" >&2
fi
exit "$status"
