# To start: make run, make test. `make help` lists the rest.
PYTHON ?= python3.11
PORT ?= 8000
CONFIG ?= serve_config.yaml
# Tiny experts only: with a chat model on a CPU, a load measures little else than that model.
LOAD_CONFIG ?= cluster/local/claims.yaml
LOAD_PORT ?= 8139
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check
# Index of torch's CPU build, if the configured one has none.
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu
# Processes of the tests that start no cluster.
TEST_WORKERS ?= 2

# A file's tests stay in one process, with its fixtures; one thread for each, because processes share the cores.
UNIT_TESTS := OMP_NUM_THREADS=1 $(PY) -m pytest -m "not e2e and not slow" -n $(TEST_WORKERS) --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help setup run test test-fast test-slow lint audit format experts policy cluster cluster-down load pictures claims clean

help:  ## Show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t16

setup: $(VENV)/.installed  ## Install everything, pinned, into .venv (no CUDA); make the chat model
	@$(PY) -m cluster.pocket.chat_model

$(VENV)/.installed: constraints-cpu.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	@grep '^torch==' constraints-cpu.txt > $(VENV)/torch.txt
	@grep -v '^torch==' constraints-cpu.txt > $(VENV)/others.txt
	@$(PIP) install --quiet --no-compile --no-deps --require-hashes -r $(VENV)/torch.txt \
		|| $(PIP) install --quiet --no-compile --no-deps --require-hashes --index-url $(TORCH_CPU_INDEX) -r $(VENV)/torch.txt
	$(PIP) install --quiet --no-compile --no-deps --require-hashes -r $(VENV)/others.txt
	@# On all processors; pip compiles on one. A few files of packages are for other Pythons and do not compile.
	@$(PY) -m compileall -q -j 0 $(VENV)/lib >/dev/null 2>&1 || true
	$(PIP) install --quiet --no-deps --no-build-isolation -e .
	@touch $@

run: setup  ## Serve on 127.0.0.1:$(PORT) with three pocket experts and a small chat model; Ctrl-C stops
	@$(PY) -m cluster.pocket.train_experts
	@$(PY) -m cluster.pocket.train_policy
	@$(PY) -m cluster.local.run --config $(CONFIG) --port $(PORT)

test: setup  ## All tests except the slow ones: the library, the graph with fakes, the real application
	$(UNIT_TESTS)
	$(PY) -m pytest -m "e2e and not slow"
	$(PY) -m pytest -m "e2e and not slow and not any_transport" tests/e2e --transport plain

test-fast: setup  ## Tests that start no cluster
	$(UNIT_TESTS)

test-slow: setup  ## Soaks and long fault runs (an hour)
	$(PY) -m pytest -m slow

lint: setup  ## Style, types and import contracts
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

audit: setup  ## Compare the lock with the published advisories, where their index responds
	$(PY) -m tests.audit

format: setup  ## Fix style and imports with ruff
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

experts: setup  ## Make the pocket experts from their recipes (cached; they come with the repository)
	$(PY) -m cluster.pocket.train_experts

policy: setup  ## Make the policies: collect, label, train and evaluate on the running experts
	$(PY) -m cluster.pocket.train_policy

claims: setup  ## Measure the paper's three claims on the served pocket experts
	$(PY) -m experiments.claims

cluster: setup  ## Start a Ray cluster of several nodes on this machine, one per pool, and deploy a graph
	$(PY) -m cluster.local.nodes up

cluster-down: setup  ## Stop that cluster
	$(PY) -m cluster.local.nodes down

load: setup  ## Start the graph of the pocket experts, run a small load test: table, plots, objectives; see var/load
	$(PY) -m load_tests --url http://127.0.0.1:$(LOAD_PORT) --slo load_tests/slo.yaml --long-words 60 \
		--start "$(PY) -m cluster.local.run --config $(LOAD_CONFIG) --port $(LOAD_PORT)"

pictures: setup  ## Take the pictures of the page for docs, in a real browser
	$(PY) -m tests.deployments.dashboard.pictures

clean:  ## Remove generated files and .venv
	rm -rf $(VENV) var build *.egg-info
