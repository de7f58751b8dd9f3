#!/bin/sh
# Install Debian or Ubuntu packages, as root only, without starting the services they bring.
# Usage: apt_install.sh PACKAGE...     Exit status 69: not possible on this machine.
[ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null || exit 69

# invoke-rc.d and deb-systemd-invoke ask this file; 101 forbids the start.  An administrator's
# own file stays.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' INT TERM
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq || echo "apt-get update failed; trying with the lists at hand" >&2
apt-get install -y -qq --no-install-recommends "$@"
