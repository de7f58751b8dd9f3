#!/bin/sh
# Make a virtual environment that has evamqp (editable) and one of its extras: what its tests need.
# Usage: setup_venv.sh PYTHON FOLDER [EXTRA]
python=$1
folder=$2
extra=${3:-test}
here=$(dirname "$0")

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
    echo "evamqp needs Python 3.10 or newer; $python is not (make PYTHON=... names another)" >&2
    exit 1
fi
# Debian keeps ensurepip, without which a virtual environment has no pip, in a package of its own.
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    if ! "$here/apt_install.sh" python3-venv; then
        echo "$python cannot make virtual environments: install python3-venv" >&2
        exit 1
    fi
fi
set -e
"$python" -m venv "$folder"
# Whoever develops wants the source to run, and no newcomer waits for a compiler.
export EVAMQP_COMPILED=0
"$folder/bin/python" -m pip install --disable-pip-version-check --quiet -e "$(cd "$here/.." && pwd)[$extra]"
