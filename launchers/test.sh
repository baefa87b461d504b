#!/bin/sh
# Predict the contest's test set with RUN (runs/contest): scores where labels are, and RUN/submission.json.
# sh launchers/test.sh [options of eval/run_all.py]; DATA (datasets) as for launchers/train.sh.
root=$(dirname "$0")/..
python="$root/.venv/bin/python"
test -x "$python" || python=python
exec "$python" "$root/eval/run_all.py" --workdir "${RUN:-runs/contest}" --data "${DATA:-datasets}/shards" "$@"
