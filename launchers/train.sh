#!/bin/sh
# Train a contest recipe: sh launchers/train.sh [options of launchers/train.py, as --recipe contest_vit_g]
# DATA (datasets) holds track1_train_data and track1_test_data; RUN (runs/contest) is gone on with;
# GPUS (all) of this machine are used; ranks meet at PORT (29500).
set -e
root=$(dirname "$0")/..
test -d "$root/.venv/bin" && PATH=$(cd "$root/.venv/bin" && pwd):$PATH
data=${DATA:-datasets} run=${RUN:-runs/contest}
test -e "$data/shards/dataset.json" || python "$root/data_sharding/make_shards.py" --data "$data" --out "$data/shards"
exec deepspeed ${GPUS:+--num_gpus "$GPUS"} --master_port "${PORT:-29500}" "$root/launchers/train.py" \
    --recipe contest_vit_b --data "$data/shards" --workdir "$run" --resume auto "$@"
