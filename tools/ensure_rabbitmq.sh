#!/bin/sh
# Make sure that RabbitMQ is installed, or say in one line that it is not.
# With EVAMQP_REQUIRE_RABBITMQ=1 a missing RabbitMQ is a failure.
here=$(dirname "$0")

is_installed() {
    if [ -n "$EVAMQP_RABBITMQ_ROOT" ]; then
        [ -e "$EVAMQP_RABBITMQ_ROOT/usr/lib/rabbitmq/bin/rabbitmq-server" ]
    elif [ -n "$EVAMQP_RABBITMQ_SCRIPTS" ]; then
        [ -e "$EVAMQP_RABBITMQ_SCRIPTS/rabbitmq-server" ]
    else
        [ -e /usr/lib/rabbitmq/bin/rabbitmq-server ] || command -v rabbitmq-server >/dev/null
    fi
}

may_install() {
    # A folder that the user named is the user's to fill.
    [ -z "$EVAMQP_RABBITMQ_ROOT$EVAMQP_RABBITMQ_SCRIPTS" ] && [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null
}

# An administrator's own policy may have let the package start its service.  The tests start a
# node of their own, and this one was not asked for.
stop_service() {
    if command -v systemctl >/dev/null && systemctl is-active --quiet rabbitmq-server; then
        systemctl stop rabbitmq-server
    elif command -v pgrep >/dev/null && pgrep -u rabbitmq -x beam.smp; then
        rabbitmqctl --quiet stop
    fi >/dev/null 2>&1
}

is_installed && exit 0
if may_install; then
    "$here/quietly.sh" "installing RabbitMQ" "$here/apt_install.sh" rabbitmq-server
    stop_service
    is_installed && exit 0
fi
echo "RabbitMQ is not installed: what needs it cannot run (Debian: apt-get install rabbitmq-server)"
[ -z "$EVAMQP_REQUIRE_RABBITMQ" ] || [ "$EVAMQP_REQUIRE_RABBITMQ" = 0 ]
