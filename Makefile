# Two commands are enough: `make demo` and `make test`. Both make the environment in .venv first.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
FILES  ?=
TESTS  ?= tests
JOBS   ?= $(shell echo $$(($$(nproc) * 2)))
SEED   ?=
LOWEST ?= .venv-lowest
# A room or two for each package whose bound is loose; what only repeats them runs with `make test`. In their order: pydantic;
# SQLAlchemy, Alembic and psycopg; pydicom, imagecodecs and Pillow; safetensors; Keras; ONNX Runtime; gRPC; SciPy and
# scikit-learn; matplotlib; pynetdicom; Prometheus; Click and Rich; Starlette, FastAPI, Jinja and Uvicorn; Authlib; highdicom;
# Shapely; Celery and Redis; OpenTelemetry.
LOWEST_TESTS ?= $(addprefix tests/, \
  config models/test_manifest.py \
  $(addprefix db/test_, engine.py migrations.py prepared_statements.py group_commit.py stale_objects.py studies.py jobs.py) \
  $(addprefix models/radiograph/test_, decode.py reading.py data_set.py grayscale.py) models/encoders/test_torch_weights.py \
  models/svm models/test_runtime.py models/remote/test_open_inference.py models/remote/test_open_inference_grpc.py \
  models/training/test_metrics.py models/training/test_pages.py node/dicom/test_storage_scp.py node/monitoring/test_metrics.py \
  node/cli/test_worklist.py \
  $(addprefix node/web/test_, pages.py security.py server.py live.py image_reader.py openid.py) \
  $(addprefix workers/results/test_, objects.py segmentation.py structured_report.py lung_segmentation.py overlay.py file_bytes.py outline.py) \
  $(addprefix workers/test_, analysis.py one_message.py traces.py))

# The tests beside each other, and at the end the slowest of them.
PYTEST  = $(BIN)/python -P -m pytest --durations=20 --durations-min=2
BESIDE  = -n $(JOBS) --dist loadgroup

CAMPAIGN := $(BIN)/python -P -m tests.campaigns
RESULTS  ?= artifacts/campaigns

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# uv compiles nothing: Python keeps what it compiles, or each process of each node would compile all that it imports again.
unexport PYTHONDONTWRITEBYTECODE

# Our own package, in place, built by the locked backend.
OWN = $(BIN)/python -m pip install --quiet --no-deps --require-hashes --requirement config/locked/build.txt && \
  $(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .

.DEFAULT_GOAL := help
.PHONY: help demo test test-training nightly campaigns chaos load soak images fuzz peers check audit sbom format docs docs-serve reference translations bench clean

help: ## Show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.demo ## Run the whole node, send it radiographs, show what comes back (FILES="a.dcm b.dcm" for your own)
	@$(BIN)/pleura demo $(FILES)

test: $(VENV)/.dev ## Run the tests beside each other (TESTS=tests/node for some, JOBS=0 one by one)
	$(PYTEST) $(BESIDE) $(TESTS)

test-training: $(VENV)/.dev ## Run the tests that train networks (minutes)
	$(PYTEST) $(BESIDE) -m training $(TESTS)

nightly: $(VENV)/.dev ## Run what the tests of CI show, on further databases, architectures and roles (minutes)
	$(PYTEST) $(BESIDE) -m nightly $(TESTS)

campaigns: $(VENV)/.dev ## Run the short form of every campaign: kills, full disks, load, damaged input (minutes)
	$(PYTEST) $(BESIDE) -m campaign $(TESTS)

chaos: $(VENV)/.dev ## Kill, hang, fill and cut off a node under load (SEED=1 COUNT=60; minutes to hours; root for its disks)
	@seed="$(or $(SEED),1)"; count="$(or $(COUNT),60)"; set -e; \
	  for database in sqlite postgresql; do \
	    $(CAMPAIGN).chaos --seed $$seed --events $$count --database $$database --json $(RESULTS)/chaos-$$database.json; \
	    $(CAMPAIGN).power_cut --seed $$seed --cuts $$((count / 6)) --database $$database \
	      --json $(RESULTS)/power-cut-$$database.json; \
	    $(CAMPAIGN).full_disk --seed $$seed --rounds $$((count / 6)) --database $$database \
	      --json $(RESULTS)/full-disk-$$database.json; \
	  done; \
	  $(CAMPAIGN).receiving_cut --seed $$seed --cuts $$((count / 6)) --json $(RESULTS)/power-cut-associations.json; \
	  $(CAMPAIGN).failover --seed $$seed --failovers $$((count / 6)) --json $(RESULTS)/failover.json; \
	  $(CAMPAIGN).clock --seed $$seed --steps $$((count / 4)) --json $(RESULTS)/clock.json; \
	  $(BIN)/python -P -m pytest -m 'campaign or not campaign' tests/node/dicom/test_storage_scp_crash.py tests/workers/test_killed.py

load: $(VENV)/.dev ## Send a node more than it can take (SEED=1 COUNT=500 studies in a burst; minutes)
	$(CAMPAIGN).load --seed $(or $(SEED),1) --studies $(or $(COUNT),500) --json $(RESULTS)/load.json

images: $(VENV)/.dev ## Build the Docker image and run it, alone and by docker-compose.yml (minutes; needs root or an engine)
	$(PYTEST) -n 2 --dist loadgroup -m image $(TESTS)

test-lowest: $(LOWEST)/.done ## Run a fast part of the tests with the lowest versions that pyproject.toml allows
	$(PYTEST:$(BIN)/%=$(LOWEST)/bin/%) $(BESIDE) $(LOWEST_TESTS)

soak: $(VENV)/.dev ## Send COUNT=10000 studies through PostgreSQL, Redis, two listeners and two workers (hours)
	$(CAMPAIGN).soak --seed $(or $(SEED),1) --studies $(or $(COUNT),10000) --json $(RESULTS)/soak.json

fuzz: $(VENV)/.dev ## Property tests on examples of SEED=…; COUNT=20000 of each kind of input to a node; GUIDED=60 seconds (atheris)
	@seed="$(SEED)"; seed="$${seed:-$$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}"; echo "make fuzz SEED=$$seed COUNT=$(COUNT) GUIDED=$(GUIDED)"; \
	  if [ -n "$(COUNT)" ]; then exec $(BIN)/python -P -m tests.fuzz.campaign --seed $$seed --count $(COUNT) --json $(RESULTS)/fuzz.json; fi; \
	  if [ -n "$(GUIDED)" ]; then exec $(BIN)/python -P -m tests.fuzz.guided --seed $$seed --seconds $(GUIDED) --json $(RESULTS)/guided.json; fi; \
	  $(BIN)/python -P -m pytest $(BESIDE) -m hypothesis \
	  --hypothesis-profile=random --hypothesis-seed=$$seed $(TESTS)

peers: ## Install the programs of others that the tests ask (Debian packages, npm parts): tests/peers.txt
	@tests/install_peers.sh

check: $(VENV)/.dev ## Format, lint, strict types, import arrows
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy -p tests -p benchmarks
	$(BIN)/lint-imports

audit: $(VENV)/.dev ## Look the locked packages up in the database of vulnerabilities, where it is reached
	$(BIN)/python .ci/audit

sbom: $(VENV)/.dev ## Write the bills of materials (CycloneDX) of wheel and images from the locked versions (minutes)
	$(BIN)/python .ci/sbom

format: $(VENV)/.dev ## Format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.docs ## Build the documentation as a site into site/, which also works from a folder
	$(BIN)/python .ci/site

docs-serve: $(VENV)/.docs ## Show the documentation at http://127.0.0.1:8000 while you write it
	$(BIN)/zensical serve --dev-addr 127.0.0.1:8000

reference: $(VENV)/.dev ## Write what is made from the code anew: tables of settings, commands, database, manifests
	$(BIN)/python -P .ci/reference

translations: $(VENV)/.dev ## Bring the catalogues of the page up to date with its texts, and compile them
	$(BIN)/pybabel --quiet extract --mapping-file pyproject.toml --keywords gettext_noop --no-location --sort-output \
	  --no-wrap --omit-header --output-file $(VENV)/pleura.pot node/web
	$(BIN)/pybabel --quiet update --domain pleura --input-file $(VENV)/pleura.pot --output-dir node/web/locale \
	  --no-fuzzy-matching --ignore-obsolete --no-wrap --ignore-pot-creation-date
	$(BIN)/pybabel compile --domain pleura --directory node/web/locale --statistics

bench: $(VENV)/.dev ## Measure everything beside a named peer: one table, also in docs/benchmarks.md (ONLY=ingest; QUICK=1; minutes to an hour)
	$(BIN)/python -P -m benchmarks.bench $(if $(ONLY),--only $(ONLY)) $(if $(QUICK),--quick)

clean: ## Remove the environments, caches and the demonstration's folder
	rm -rf $(VENV) $(LOWEST) demo artifacts site .cache .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
	  { echo "Pleura needs Python 3.11, 3.12 or 3.13; say which: make PYTHON=python3.12 …" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(VENV)/bin/python pyproject.toml
	@echo "Installing Pleura into $(VENV) (about a minute) …"
	@$(OWN)
	@$(BIN)/python -m pip install --quiet 'pleura[demo]'
	@touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml
	@echo "Installing Pleura and its development tools into $(VENV) (a few minutes) …"
	@$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	@$(OWN)
	@$(BIN)/python -m pip install --quiet uv
	@$(BIN)/uv pip install --quiet --python $(BIN)/python 'pleura[demo,grpc,openid,traces,train]' --group dev
	@touch $@

$(VENV)/.docs: $(VENV)/bin/python pyproject.toml
	@echo "Installing what builds the documentation into $(VENV) …"
	@$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --group docs
	@touch $@

$(LOWEST)/.done: pyproject.toml
	$(PYTHON) -m venv $(LOWEST)
	@echo "Installing the lowest versions into $(LOWEST) …"
	@$(LOWEST)/bin/python -m pip install --quiet uv
	@$(LOWEST)/bin/uv pip compile --quiet --python $(LOWEST)/bin/python --resolution lowest-direct \
	  --extra demo --extra grpc --extra openid --extra traces --extra train --output-file $(LOWEST)/lowest.txt pyproject.toml
	@$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST)/bin/python --requirement $(LOWEST)/lowest.txt --group test
	@$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST)/bin/python --no-deps --editable .
	@touch $@
