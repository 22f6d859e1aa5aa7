# Set-up, tests and checks. Everything lands in the two environments below; nothing is installed elsewhere.
PYTHON ?= python3
VENV := .venv
REFERENCE := .venv-reference
TRAINING := .venv-demo
BIN := $(VENV)/bin

# What the back end of this machine is called as an extra; on macOS it adds nothing.
BACKEND ?= cpu
# PyPI's build for Linux brings CUDA along; PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu does without.
TORCH ?= torch==2.13.0
# Where training keeps its state and evaluation its clips, outside the repository.
STATE ?= $(HOME)/.cache/funasr-cli-demo
EVAL_CLIPS ?= 1000
# Where `bench-peers` keeps its environments, its checkpoint (3.5 GB) and what it measured; and its options.
PEERS ?= $(HOME)/.cache/funasr-cli-peers
PEERS_OPTIONS ?=
# What `check-release` accepts, a hub id or a folder, and with what: HUB=ms, RECIPES="none 8 mixed 4", OUT=folder to keep
# what it converts, REFERENCE_PYTHON=interpreter that has FunASR, RELEASE_OPTIONS for the rest. See docs/release.md.
MODEL ?= FunAudioLLM/Fun-ASR-Nano-2512
RELEASE_OPTIONS ?=
# The versions that are tested with; empty for the newest ones.
CONSTRAINTS ?= --constraint constraints.txt
# Tests that run side by side, one thread each; a full-size model takes up to 4 GB in each of them.
WORKERS ?= 2
# Compiled modules are kept, whatever the shell says: else each process of the tests would compile them anew.
PYTEST = PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 REFERENCE_PYTHON="$(CURDIR)/$(REFERENCE)/bin/python" \
	$(BIN)/python -m pytest -n $(WORKERS) --durations=20
QUICK = -q --dist worksteal -m "not slow and not process and not full" --hypothesis-profile=quick
PIP_FLAGS ?= --quiet --disable-pip-version-check

.PHONY: demo install lint format docs messages test test-quick test-full coverage eval bench-peers check-release demo-model demo-sense-voice clean

# Transcribe the bundled clips with the bundled model: all that a newcomer needs to see it work.
demo: $(VENV)/.runs
	cd funasr_cli/demo/clips && "$(CURDIR)/$(BIN)/funasr" transcribe --model ../model --stream *.flac

install: $(VENV)/.installed

$(VENV)/.runs: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install $(PIP_FLAGS) --upgrade 'pip>=25.1'
	$(BIN)/pip install $(PIP_FLAGS) $(CONSTRAINTS) --editable '.[$(BACKEND)]'
	touch $@

$(VENV)/.installed: $(VENV)/.runs
	$(BIN)/pip install $(PIP_FLAGS) $(CONSTRAINTS) '$(TORCH)'
	$(BIN)/pip install $(PIP_FLAGS) $(CONSTRAINTS) --group lint --group test --editable '.[$(BACKEND),convert]'
	$(BIN)/pip install $(PIP_FLAGS) --no-deps silero-vad==6.2.3
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

# docs/messages.md: every error, its code and exit code, read from the source.
messages: install
	PYTHONPATH=tests $(BIN)/python -m support.messages

docs: install
	$(BIN)/typer funasr_cli.cli.app utils docs --name funasr --output docs/cli.md

# Before every commit: a minute on two cores.
test-quick: install
	$(PYTEST) $(QUICK)

# What continuous integration runs: a quarter of an hour on two cores.
test: lint $(REFERENCE)/.installed
	$(PYTEST) -ra --dist loadfile -m "not full"

# With full-size models and long comparisons as well: before an issue is closed.
test-full: lint $(REFERENCE)/.installed
	$(PYTEST) -ra --dist loadfile

# Which lines the quick tests run.
coverage: install
	$(PYTEST) $(QUICK) --cov funasr_cli --cov-report term:skip-covered

# The environment that speaks and trains; also apart, since it brings the reference along.
$(TRAINING)/.installed: tools/demo/requirements.txt
	$(PYTHON) -m venv $(TRAINING)
	$(TRAINING)/bin/pip install $(PIP_FLAGS) '$(TORCH)'
	$(TRAINING)/bin/pip install $(PIP_FLAGS) --requirement $<
	touch $@

# Error rates, word times and drafts of the bundled model on clips synthesised for it: see docs/reports/demo-accuracy.md,
# docs/reports/word-times.md and docs/reports/drafted-decoding.md.
eval: install $(REFERENCE)/.installed $(TRAINING)/.installed
	$(TRAINING)/bin/python -m tools.demo clips --clips $(EVAL_CLIPS) --out "$(STATE)/eval/clean"
	$(TRAINING)/bin/python -m tools.demo clips --clips $(EVAL_CLIPS) --snr 10 --out "$(STATE)/eval/10 dB SNR"
	$(BIN)/python -m tools.accuracy.evaluate "$(STATE)/eval/clean" "$(STATE)/eval/10 dB SNR" \
		--out docs/reports/demo-accuracy.md --reference-python $(REFERENCE)/bin/python
	$(BIN)/python -m tools.accuracy.word_times "$(STATE)/eval/clean" "$(STATE)/eval/10 dB SNR" \
		--out docs/reports/word-times.md
	$(BIN)/python -m tools.accuracy.drafts "$(STATE)/eval/clean" --out docs/reports/drafted-decoding.md

# Other programs on the same model, each as its package installs it.
$(PEERS)/torch/.installed: tools/peers/requirements-torch.txt
	$(PYTHON) -m venv "$(PEERS)/torch"
	"$(PEERS)/torch/bin/pip" install $(PIP_FLAGS) '$(TORCH)'
	"$(PEERS)/torch/bin/pip" install $(PIP_FLAGS) --requirement $<
	touch "$@"

$(PEERS)/mlx-audio/.installed: tools/peers/requirements-mlx-audio.txt
	$(PYTHON) -m venv "$(PEERS)/mlx-audio"
	"$(PEERS)/mlx-audio/bin/pip" install $(PIP_FLAGS) --requirement $<
	touch "$@"

# This project and those in turns; writes docs/reports/benchmarks.md. Half an hour with all that it installs, 19 GB of memory.
bench-peers: install $(PEERS)/torch/.installed $(PEERS)/mlx-audio/.installed
	$(BIN)/python -m tools.peers --state "$(PEERS)" --out docs/reports/benchmarks.md $(PEERS_OPTIONS)

# Convert the real weights in every precision, transcribe, compare, measure: PASS or FAIL, and a block for an issue.
# The PyTorch reference is asked where it is set up, by make .venv-reference/.installed (1.8 GB), or named in
# FUNASR_REFERENCE_PYTHON.
check-release: SET_UP = $(if $(wildcard $(REFERENCE)/.installed),$(REFERENCE)/bin/python)
check-release: REFERENCE_PYTHON ?= $(or $(FUNASR_REFERENCE_PYTHON),$(SET_UP))
check-release: install
	FUNASR_REFERENCE_PYTHON="$(REFERENCE_PYTHON)" $(BIN)/python -m tools.release "$(MODEL)" \
		$(if $(HUB),--hub "$(HUB)") $(if $(RECIPES),--recipes $(RECIPES)) $(if $(OUT),--out "$(OUT)") $(RELEASE_OPTIONS)

# Train the demo model anew, for hours, or go on where an earlier run stopped; then put it in place.
demo-model: install $(TRAINING)/.installed
	$(TRAINING)/bin/python -m tools.demo train --state "$(STATE)/training"
	rm -rf "$(STATE)/demo"
	$(TRAINING)/bin/python -m tools.demo export --state "$(STATE)/training" --out "$(STATE)/demo"
	$(BIN)/funasr convert "$(STATE)/demo" funasr_cli/demo/model --languages zh,en --force

# Train the tests' small SenseVoice anew from the bundled model, in half an hour, and put it in place.
demo-sense-voice: $(TRAINING)/.installed
	$(TRAINING)/bin/python -m tools.demo sense --state "$(STATE)/sense" --out "$(STATE)/sense-voice"
	rm -rf tests/data/sense_voice_small
	cp -r "$(STATE)/sense-voice" tests/data/sense_voice_small

clean:
	rm -rf $(VENV) $(REFERENCE) $(TRAINING) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage
