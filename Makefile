# Every target does the set-up it needs; a second call skips what is done.
#
#   make demo     set up what using the model takes, then compare two of the shipped recordings
#   make serve    set up, then start the service: http://127.0.0.1:8005
#   make test     set up, then run the tests, on all cores
#   make coverage the same, and which lines and branches no test reaches
#   make check    what a change must pass: format, lint, types, tests
#   make bench    the measurements; they rewrite their tables in docs/results.md
#   make setup    set up everything that the scripts need, TensorFlow among it
#   make model    the whole recipe, from a folder of speech to a model: make model DATA=folder
#   make clean    remove caches, logs and .venv; never recordings, lists or models
#
# PYTHON=python3.12 chooses the interpreter of .venv, MIRROR=URL another package index,
# ARGS="-k name -x" what pytest runs, or options of serve.py and run_all.py.

SHELL := /bin/bash
BIN := .venv/bin
ARGS ?=
export PYTHON MIRROR
# Else each of the tests' processes compiles all modules anew.
unexport PYTHONDONTWRITEBYTECODE
export DATA WORK OUTPUT TEACHER WHEEL EPOCHS STEPS BATCH VIEWS PRECISION WARMUP WORKERS TRAIN_ARGS DESCRIPTION

.PHONY: demo serve test coverage check lint bench model clean setup setup-infer setup-service setup-dev

demo: setup-infer
	$(BIN)/python infer_contrast.py --audio_path1=audio/a_1.wav --audio_path2=audio/b_2.wav

serve: setup-service
	$(BIN)/python serve.py $(ARGS)

test: setup-dev
	$(BIN)/python -m pytest -n auto --maxprocesses=8 --dist worksteal $(ARGS)

coverage: override ARGS += --cov --cov-report=term:skip-covered
coverage: test

check: lint test

lint: setup-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: setup-dev
	$(BIN)/python benchmarks/run_all.py $(ARGS)

model: setup
	@tools/make_model.sh

setup:
	@tools/setup.sh

setup-infer:
	@tools/setup.sh --infer

setup-service:
	@tools/setup.sh --service

setup-dev:
	@tools/setup.sh --dev

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage log
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
