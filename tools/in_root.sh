#!/bin/sh
# Run a program of another root folder, as this very process: its id and its end are the program's.
# The mounts belong to a namespace of the process and vanish with it.
# Usage, as root only: in_root.sh ROOT SHARED PROGRAM [ARGUMENT]...
# SHARED is a folder of this machine that the program finds at the same place.
exec unshare --mount --propagation private sh -ec '
    root=$1
    shared=$2
    shift 2
    mkdir -p "$root$shared"
    mount --rbind /dev "$root/dev"
    mount -t proc proc "$root/proc"
    mount --bind "$shared" "$root$shared"
    exec chroot "$root" "$@"
' "$0" "$@"
