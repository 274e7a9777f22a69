# make demo   install into .venv and run the main job
# make test   install into .venv and run all tests, JOBS=N at a time
# make quick  the tests that start no process: no Ray, no MLflow server, no command
# make lint   ruff, formatting, mypy
# make docs   build the documentation into site/, strictly: no dead link
# make audit  ask a database of advisories about what is installed; says so where none can be reached
# make fuzz   100,000 inputs for every reader of files from others, guided by coverage (INPUTS=N)
# make bench  print the speed figures and write them into benchmarks/results (CIFAR10=DIR, DEVICE=cuda)
# make chaos  run 20 studies under random faults and check every ledger (SEEDS=N, CHAOS=DIR); goes on if stopped

PYTHON ?= python3
DEVICE ?= cpu
JOBS ?= 2
INPUTS ?= 100000
SEEDS ?= 20
CHAOS ?= runs/chaos
QUICK := not (ray or server or command or compiler or browser or tmpfs or slow)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test quick lint format docs audit fuzz bench chaos install clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch torchvision
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev,server]"
	touch $@

demo: $(INSTALLED)
	$(BIN)/raydc run quickstart --out runs/quickstart

test: $(INSTALLED)
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadgroup --no-loadscope-reorder

quick: $(INSTALLED)
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadgroup --no-loadscope-reorder -m "$(QUICK)"

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[docs]"
	$(BIN)/mkdocs build --strict

audit: $(INSTALLED)
	$(BIN)/python .ci/audit.py

fuzz: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[fuzz]"
	$(BIN)/python -m tests.fuzz --inputs $(INPUTS)

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks.label_store --device $(DEVICE)
	$(BIN)/python -m benchmarks.students --device $(DEVICE) $(if $(CIFAR10),--data $(CIFAR10))
	$(BIN)/python -m benchmarks.equivalence --device $(DEVICE) $(if $(CIFAR10),--data $(CIFAR10))
	$(BIN)/python -m benchmarks.label_service --device $(DEVICE) $(if $(CIFAR10),--data $(CIFAR10))
	$(BIN)/python -m benchmarks.orchestration
	$(BIN)/python -m benchmarks.decoding
	$(BIN)/python -m benchmarks.study
	$(BIN)/python -m benchmarks.selection
	$(BIN)/python -m benchmarks.report
	$(BIN)/python -m benchmarks.tracking

chaos: $(INSTALLED)
	$(BIN)/python -m benchmarks.chaos --seeds $(SEEDS) --out $(CHAOS)

clean:
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
