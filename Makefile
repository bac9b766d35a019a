# Every target works from a fresh clone with nothing but Python 3.11+ and make.
# The environment lives in .venv/; delete that folder to start over.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The versions every machine gets; torch is pinned there because a plain `torch` may pull gigabytes.
CONSTRAINTS := constraints.txt
# Of the packages that build ours.
BUILD_CONSTRAINTS := constraints-build.txt
PIP_VERSION := 26.3

# Of `make chaos`, `make soak` and `make damage`.
KILLS ?= 200
TASKS ?= 60
SEED ?= 22
MINUTES ?= 30
SEEDS ?= 200

# The web interface, as the server sends it, and what it is made from.
WEB := backend/assets/web/index.html
WEB_SOURCES := $(shell find frontend -name node_modules -prune -o -type f -not -name '*.gen.ts' -print)

PROMPT ?= a red circle moving right on a navy background
DEMO_HOME := $(CURDIR)/.demo
DEMO_FILE ?= demo.mp4

.DEFAULT_GOAL := help
.PHONY: help install demo serve ui test check bench chaos damage outages soak docs format lock clean

help: ## List the targets
	@sed -n 's/^\([a-z]*\):.*## /make \1\t/p' $(MAKEFILE_LIST) | expand -t 16

# Every step stops with a clear message when it fails: half an environment is worse than none.
$(VENV)/.installed: pyproject.toml $(CONSTRAINTS) $(BUILD_CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "error: Python 3.11 or newer is needed; set it with: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "error: Python's venv module is missing; on Debian: apt-get install python3-venv"; exit 1; }
	@echo "Installing into $(VENV) (a few minutes the first time) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "pip==$(PIP_VERSION)"
	@$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --build-constraint $(BUILD_CONSTRAINTS) --editable . || \
	  { echo "error: the packages could not be installed; see above"; exit 1; }
	@touch $@

$(VENV)/.dev: $(VENV)/.installed
	@$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --group dev || \
	  { echo "error: the development tools could not be installed; see above"; exit 1; }
	@touch $@

# Node comes from a wheel; an installed wheel of wan22 needs none.
$(VENV)/.node: $(VENV)/.installed
	@$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --group web || \
	  { echo "error: Node could not be installed; see above"; exit 1; }
	@touch $@

$(WEB): $(VENV)/.node $(WEB_SOURCES) docs/openapi.json
	@echo "Building the web interface ..."
	@$(BIN)/python frontend/build.py types build
	@touch $@

install: $(VENV)/.installed $(WEB) ## Install everything needed to run into .venv/

demo: $(VENV)/.installed ## Generate a real clip from a prompt through the public API: make demo PROMPT="..."
	@WAN22_HOME="$(DEMO_HOME)" $(BIN)/wan22 generate --standalone --show --gif --upscale 4 --output "$(DEMO_FILE)" "$(PROMPT)"
	@echo
	@echo "Next:  make demo PROMPT=\"a yellow triangle spinning on a teal background\""
	@echo "       make serve                    then open http://127.0.0.1:8000"
	@echo "       $(BIN)/wan22 --help           all commands"
	@echo "       $(BIN)/wan22 doctor           what works on this machine"

serve: $(VENV)/.installed $(WEB) ## Start the server on http://127.0.0.1:8000
	@$(BIN)/wan22 serve

ui: $(VENV)/.node ## Show the web interface as it is being changed, on http://localhost:5173; the server runs beside it
	@$(BIN)/python frontend/build.py types dev

test: $(VENV)/.dev $(WEB) ## Run every test, on up to four cores at once
	@$(BIN)/python frontend/build.py test
	@$(BIN)/pytest --numprocesses logical --maxprocesses 4 --dist worksteal

check: $(VENV)/.dev $(WEB) ## Format, lint, types, layers, dead code
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/vulture
	@$(BIN)/python frontend/build.py check size

bench: $(VENV)/.installed ## Compare predicted with measured memory and seconds; half an hour on an idle machine
	@$(BIN)/python -m benchmarks.memory
	@$(BIN)/python -m benchmarks.seconds

chaos: $(VENV)/.installed ## Kill server and worker at random while they make clips; half an hour: make chaos KILLS=20 TASKS=10 SEED=1
	@$(BIN)/python -m benchmarks.chaos --kills $(KILLS) --tasks $(TASKS) --seed $(SEED)

soak: $(VENV)/.installed ## Work for MINUTES and see whether memory, handles, threads or database grow
	@$(BIN)/python -m benchmarks.soak --minutes $(MINUTES)

outages: $(VENV)/.dev ## Take the disk, the database and the clock from a server in mid-clip, a minute each; a quarter of an hour
	@$(BIN)/python -m benchmarks.outages

damage: $(VENV)/.installed ## Overwrite 200 bytes of a database, SEEDS times, and start a server on it; an hour
	@$(BIN)/python -m benchmarks.damage --seeds $(SEEDS)

docs: $(VENV)/.dev ## Write what the documents derive from the code: map, list of files, API schema
	@$(BIN)/python -m docs.generate

format: $(VENV)/.dev ## Format the code and fix what a tool can fix
	@$(BIN)/ruff format --quiet .
	@$(BIN)/ruff check --quiet --fix .
	@$(BIN)/python frontend/build.py format

lock: $(VENV)/.dev ## Pin the installed versions in constraints.txt
	@$(BIN)/python -m pip list --format freeze --exclude-editable --exclude pip | sed 's/+cpu$$//' > $(CONSTRAINTS)

clean: ## Remove the environment and the demo's files
	@rm -rf $(VENV) $(DEMO_HOME) frontend/node_modules $(dir $(WEB))
