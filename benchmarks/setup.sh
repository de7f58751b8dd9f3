#!/bin/sh
# Make the benchmark's own virtual environment: the loops, and the clients that evamqp is compared
# with.  A client that cannot be installed is left out.
# Usage: setup.sh PYTHON FOLDER
python=$1
folder=$2
set -e
"$python" -m venv "$folder"
install() { "$folder/bin/python" -m pip install --disable-pip-version-check --quiet "$@"; }
install tornado twisted uvloop
for client in pika aio-pika amqp kombu; do
    install "$client" || echo "without $client" >&2
done
# It needs an older pamqp than aio-pika does, hence a folder of its own.
install --target "$folder/aioamqp" aioamqp "pamqp<4" || echo "without aioamqp" >&2
