#!/bin/sh
# Finetune on your data: sh launchers/finetune.sh --data DIR [DIR ...]; --help says the rest.
root=$(dirname "$0")/..
python="$root/.venv/bin/python"
test -x "$python" || python=python
exec "$python" "$root/launchers/finetune.py" "$@"
