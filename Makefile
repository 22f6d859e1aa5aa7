# Set-up, tests and checks. Everything lands in the two environments below; nothing is installed elsewhere.
PYTHON ?= python3
VENV := .venv
REFERENCE := .venv-reference
BIN := $(VENV)/bin

# What the back end of this machine is called as an extra; on macOS it adds nothing.
BACKEND ?= cpu
# PyPI's build for Linux brings CUDA along; PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu does without.
TORCH ?= torch==2.13.0
PIP_FLAGS ?= --quiet --disable-pip-version-check

.PHONY: install lint format docs test test-quick clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install $(PIP_FLAGS) --upgrade 'pip>=25.1'
	$(BIN)/pip install $(PIP_FLAGS) '$(TORCH)'
	$(BIN)/pip install $(PIP_FLAGS) --group lint --group test --editable '.[$(BACKEND),convert]'
	touch $@

# The PyTorch reference lives apart: its package installs a `funasr` command of its own.
$(REFERENCE)/.installed: tests/parity/requirements.txt
	$(PYTHON) -m venv $(REFERENCE)
	$(REFERENCE)/bin/pip install $(PIP_FLAGS) '$(TORCH)'
	$(REFERENCE)/bin/pip install $(PIP_FLAGS) --requirement tests/parity/requirements.txt
	touch $@

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: install
	$(BIN)/typer funasr_cli.cli.app utils docs --name funasr --output docs/cli.md

test: lint $(REFERENCE)/.installed
	FUNASR_REFERENCE_PYTHON=$(CURDIR)/$(REFERENCE)/bin/python $(BIN)/python -m pytest -ra

test-quick: install
	$(BIN)/python -m pytest -q -m "not slow"

clean:
	rm -rf $(VENV) $(REFERENCE) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
