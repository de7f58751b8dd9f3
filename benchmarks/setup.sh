#!/bin/sh
# Make the benchmark's own virtual environment: the loops, and the clients that evamqp is compared
# with.  A client that cannot be installed is left out.
# Usage: setup.sh PYTHON FOLDER
python=$1
folder=$2
set -e
"$python" -m venv "$folder"
install() { "$folder/bin/python" -m pip install --disable-pip-version-check --quiet "$@"; }
install tornado twisted uvloop trustme
# The compiled build's rows.
install "setuptools>=77" "Cython>=3.1" || echo "without what compiles evamqp" >&2
for client in pika aio-pika amqp kombu; do
    install "$client" || echo "without $client" >&2
done
# It needs an older pamqp than aio-pika does, hence a folder of its own.
install --target "$folder/aioamqp" aioamqp "pamqp<4" || echo "without aioamqp" >&2
# rabbitmq-c is a library of C: Debian's librabbitmq-dev.
if ! gcc -O2 -o "$folder/bin/bench-rabbitmq-c" "$(dirname "$0")/drivers/peers/rabbitmq_c.c" -lrabbitmq; then
    echo "without rabbitmq-c" >&2
fi
