# The two commands that matter: `make run` and `make test`. Both make the environment first.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
ARGS   ?= experiment=digits_averaged

# uv does not read pip's variable; a machine that offers wheels in a folder offers them to both.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
# One thread per process: the models here are small, and the tests use several processes.
export OMP_NUM_THREADS ?= 1
# A machine that forbids byte code would have each process compile torch and Lightning anew: 12 s of its start.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help run test checks lint types pytest bench-pointers bench-simulation bench-scale bench-self-log bench-trainer bench-published lightning-suite opinfo hostile properties docs clean

help:  ## Show these targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(STAMP)  ## Train on digits that live at ten workers (ARGS="experiment=digits_sequential" for another job).
	$(BIN)/fedlightning-train $(ARGS)

test: checks pytest  ## Lint, check types, build the documentation, run the tests.

checks: $(STAMP)  ## Lint, check types and build the documentation, two of them at a time.
	@$(MAKE) --no-print-directory --jobs=2 types docs lint

lint: $(STAMP)  ## Check style, format and the layers' import contract.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(STAMP)  ## Check types (strict).
	$(BIN)/mypy

pytest: $(STAMP)  ## Run the tests in two processes.
	$(BIN)/python -m pytest -n 2 --dist loadgroup

bench-pointers: $(STAMP)  ## Measure what pointers cost against doing without them (two minutes).
	$(BIN)/python -m benchmarks.pointers

bench-simulation: $(STAMP)  ## Measure what a simulated federation costs beside a loop by hand (minutes).
	$(BIN)/python -m benchmarks.simulation

bench-scale: $(STAMP)  ## Measure what many workers and many rounds cost in time and memory (minutes).
	$(BIN)/python -m benchmarks.scale

bench-self-log: $(STAMP)  ## Measure what a call of self.log costs during a visit (seconds).
	$(BIN)/python -m benchmarks.self_log

bench-trainer: $(STAMP)  ## Measure what the strategy adds to an ordinary fit, step for step (minutes).
	$(BIN)/python -m benchmarks.trainer

bench-published: $(STAMP)  ## Try what papers report over ten draws of data, and write docs/published.md (an hour).
	$(BIN)/python -m benchmarks.published --write

lightning-suite: $(STAMP)  ## Run Lightning's own tests with our strategy (LIGHTNING_TESTS=<its checkout> UPDATE=averaged).
	$(BIN)/python -m tests.lightning_suite.compare "$(LIGHTNING_TESTS)" --update $(or $(UPDATE),sequential)

opinfo: $(STAMP)  ## Survey every operator of torch's database on pointers, with all samples (SAMPLES=1 for one each).
	$(BIN)/python -W ignore -m tests.pointers.opinfo $(SAMPLES)

hostile: $(STAMP)  ## Try every operation with hostile arguments behind a fence around memory (Linux, C compiler; an hour).
	$(BIN)/python -W ignore -m tests.workers.hostile $(OPERATION)

properties: $(STAMP)  ## Look for counter-examples to the properties that the tests state, new ones each time (minutes).
	$(BIN)/python -m pytest -n 2 -m hypothesis --hypothesis-profile=exploring tests

docs: $(STAMP)  ## Build the documentation into site/; any warning is an error.
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

clean:  ## Remove the environment and everything built.
	rm -rf $(VENV) build dist site outputs multirun lightning_logs .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find benchmarks docs fedlightning tests -name __pycache__ -prune -exec rm -r {} +

# uv if the machine has it; otherwise pip puts it into the environment itself.
$(STAMP): pyproject.toml constraints.txt
	@if command -v uv >/dev/null && uv --version >/dev/null 2>&1; then \
		uv venv --quiet --allow-existing --python $(PYTHON) $(VENV) && UV=uv; \
	else \
		$(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install --quiet --disable-pip-version-check uv && UV=$(BIN)/uv; \
	fi && \
	$$UV pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[dev,docs,examples]'
	@touch $@
