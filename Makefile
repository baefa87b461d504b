# make demo: the whole path on a synthetic world.   make test: everything that must hold.   make setup: just the venv.   make clean: without the demo run.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export DS_ACCELERATOR ?= $(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi >/dev/null 2>&1 && echo cuda || echo cpu)
export PYTHONUNBUFFERED := 1
RANKS ?= $(shell test "$$(nvidia-smi -L 2>/dev/null | wc -l)" = 1 && echo 1 || echo 2)
DEEPSPEED := $(BIN)/deepspeed --num_gpus $(RANKS)
RUN ?= runs/demo

.PHONY: setup demo demo-depth test test-slow test-gpu faults fuzz bench browser docs lint lock clean

setup: $(VENV)/.installed

$(VENV)/.installed: requirements.txt pyproject.toml setup.py
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --progress-bar off -r requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

demo: setup
	rm -rf $(RUN)
	$(BIN)/python data_sharding/make_synthetic.py --out $(RUN)/world --seed 0
	$(BIN)/python data_sharding/make_shards.py --data $(RUN)/world --out $(RUN)/shards
	$(DEEPSPEED) launchers/train.py --recipe demo --data $(RUN)/shards --workdir $(RUN)
	$(BIN)/python eval/run_all.py --workdir $(RUN) --data $(RUN)/shards --protocol standard

# Four tasks: the demo's and depth estimation, about eight minutes.
demo-depth: setup
	rm -rf $(RUN)-depth
	$(BIN)/python data_sharding/make_synthetic.py --out $(RUN)-depth/world --seed 0 --depth 300 40 100
	$(BIN)/python data_sharding/make_shards.py --data $(RUN)-depth/world $(RUN)-depth/world/depth --out $(RUN)-depth/shards
	$(DEEPSPEED) launchers/train.py --recipe demo_depth --data $(RUN)-depth/shards --workdir $(RUN)-depth
	$(BIN)/python eval/run_all.py --workdir $(RUN)-depth --data $(RUN)-depth/shards --protocol standard

test: setup lint browser
	$(BIN)/python -m pytest -m "not slow and not gpu" -n 2 --dist loadfile

test-slow: setup
	$(BIN)/python -m pytest -m slow

test-gpu: setup
	$(BIN)/python -m pytest -m gpu

# Random faults, and damaged files, for the tables in benchmarks/results: about two hours, and one.
faults: setup
	$(BIN)/python benchmarks/faults.py --minutes 120 --faults 300 --write

fuzz: setup
	$(BIN)/python benchmarks/fuzz.py --inputs 200000 --write

# What the product costs beside plain loops, on CPUs; fails where it has become slower than the committed ratios.
bench: setup
	$(BIN)/python -W ignore benchmarks/cpu_ratios.py

# The report's page is tested in Debian's chromium; without it, and without the right to install it, those tests skip.
browser:
	@command -v chromium >/dev/null || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null \
		&& apt-get update -qq && apt-get install -y -qq chromium chromium-driver >/dev/null; } \
		|| echo "chromium is not here and cannot be installed: browser tests will skip"

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# The documentation's site, in site/; look at it with: python -m http.server -d site
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Write requirements.txt anew from what is installed.
lock:
	$(BIN)/python -m pip freeze --all --exclude-editable | grep -v -E '^(pip|ufo-large)==' > requirements.txt

clean:
	rm -rf runs/demo build *.egg-info
