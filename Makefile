# The whole development loop. Every target installs what is missing into .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DATA ?=
OUT ?=
ARGS ?=

.PHONY: study test lint bench bench-device figures schemas install dev clean

study: $(VENV)/installed ## the main job, on the built-in sample or DATA=path
	$(BIN)/frostline study $(DATA) $(if $(OUT),--out $(OUT)) $(ARGS)

test: $(VENV)/installed-dev ## the whole suite, one process a core; a test file stays in one of them (its fixtures are studies)
	$(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist loadfile $(ARGS)

lint: $(VENV)/installed-dev ## style, types and the import contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/installed-dev ## frostline's stages, then the race against Keras, PyTorch and fastai (DATA=path, hours; ARGS="--jobs frozen")
	$(BIN)/python benchmarks/stages.py $(DATA)
	$(BIN)/python benchmarks/race.py $(DATA) $(ARGS)

bench-device: $(VENV)/installed-dev ## the tests that run on every accelerator that is there, then its times beside the processor's (DATA=path)
	$(BIN)/pytest -m device
	$(BIN)/python benchmarks/device.py $(DATA) $(ARGS)

figures: $(VENV)/installed ## docs/figures.toml's figures, into README.md and docs/*.md
	$(BIN)/python benchmarks/figures.py

schemas: $(VENV)/installed ## the JSON schemas of study.json and its kin, into docs/
	$(BIN)/python -m frostline.documents docs

install: $(VENV)/installed
dev: $(VENV)/installed-dev

# exact versions, so that a study gives here what it gave elsewhere
$(VENV)/installed: pyproject.toml requirements.lock
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed requirements-dev.lock
	$(BIN)/python -m pip install --quiet --requirement requirements-dev.lock
	touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
