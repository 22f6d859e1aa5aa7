# Set-up, tests and checks. Packages are installed only into the environments below.
PYTHON ?= python3
VENV := .venv
REFERENCE := .venv-reference
TRAINING := .venv-demo
BIN := $(VENV)/bin

# The extra with the back end of this machine; on macOS it adds nothing.
BACKEND ?= cpu
# PyPI's build for Linux includes CUDA; with PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu it does not.
TORCH ?= torch==2.13.0
# Folder for the state of the training and the clips of the evaluation, outside the repository.
STATE ?= $(HOME)/.cache/funasr-cli-demo
EVAL_CLIPS ?= 1000
# Folder of `bench-peers` for its environments, checkpoint (3.5 GB) and results; and its options.
PEERS ?= $(HOME)/.cache/funasr-cli-peers
PEERS_OPTIONS ?=
# The commit of CrispASR's repository whose converter writes its checkpoints.
CRISPASR_COMMIT := 72d3c389e6e9a8d2e64b76cd0837eebf420c83ac
# The model that `check-release` tests: a hub id or a folder. Further variables: HUB=ms, RECIPES="none 8 mixed 4",
# OUT=folder for the converted models, REFERENCE_PYTHON=interpreter with FunASR, RELEASE_OPTIONS. See docs/release.md.
MODEL ?= FunAudioLLM/Fun-ASR-Nano-2512
RELEASE_OPTIONS ?=
# The tested versions; empty for the newest ones.
CONSTRAINTS ?= --constraint constraints.txt
# Number of parallel test processes, one thread each; a full-size model takes up to 4 GB in each.
WORKERS ?= 2
# Always write .pyc files; otherwise each test process compiles all modules again.
PYTEST = PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 REFERENCE_PYTHON="$(CURDIR)/$(REFERENCE)/bin/python" \
	$(BIN)/python -m pytest -n $(WORKERS) --durations=20
REAL_DATA = $(BIN)/python -m tools.real_data
QUICK = -q --dist worksteal -m "not slow and not process and not full" --hypothesis-profile=quick
PIP_FLAGS ?= --quiet --disable-pip-version-check

.PHONY: demo install lint format docs messages test test-quick test-full real-data coverage eval bench-peers bench-peers-whisper check-release demo-model demo-sense-voice demo-translator clean

# Install, and transcribe the bundled clips with the demo model.
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
	$(BIN)/pip install $(PIP_FLAGS) $(CONSTRAINTS) --group lint --group test --editable '.[$(BACKEND),convert,serve]'
	$(BIN)/pip install $(PIP_FLAGS) --no-deps silero-vad==6.2.3
	touch $@

# The PyTorch reference has a separate environment, because its package also installs a command named `funasr`.
$(REFERENCE)/.installed: tests/parity/requirements.txt
	$(PYTHON) -m venv $(REFERENCE)
	$(REFERENCE)/bin/pip install $(PIP_FLAGS) '$(TORCH)'
	$(REFERENCE)/bin/pip install $(PIP_FLAGS) --requirement tests/parity/requirements.txt
	$(REFERENCE)/bin/pip install $(PIP_FLAGS) --no-deps openai-whisper==20250625
	touch $@

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m tools.plain_english

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Write docs/messages.md: every error with its code and exit code, read from the source.
messages: install
	PYTHONPATH=tests $(BIN)/python -m support.messages

docs: install
	$(BIN)/typer funasr_cli.cli.app utils docs --name funasr --output docs/cli.md

# Run before every commit: a minute on two cores.
test-quick: install
	$(PYTEST) $(QUICK)

# Run by continuous integration: a quarter of an hour on two cores. Tests on real data are skipped if it cannot be fetched.
test: lint $(REFERENCE)/.installed
	-$(REAL_DATA)
	$(PYTEST) -ra --dist loadfile -m "not full"

# Also run full-size models and long comparisons: before an issue is closed.
test-full: lint $(REFERENCE)/.installed
	-$(REAL_DATA)
	$(PYTEST) -ra --dist loadfile --hypothesis-profile=random

# Fetch Whisper's weights and recorded speech (330 MB) into ~/.cache/funasr-cli-real-data, or FUNASR_REAL_DATA; 0.8 GB on
# disk. Says what is missing and why, and fails then.
real-data: install
	$(REAL_DATA)

# Show which lines the quick tests execute.
coverage: install
	$(PYTEST) $(QUICK) --cov funasr_cli --cov-report term:skip-covered

# The environment for speech synthesis and training; separate, because it includes the reference.
$(TRAINING)/.installed: tools/demo/requirements.txt
	$(PYTHON) -m venv $(TRAINING)
	$(TRAINING)/bin/pip install $(PIP_FLAGS) '$(TORCH)'
	$(TRAINING)/bin/pip install $(PIP_FLAGS) --requirement $<
	touch $@

# Measure error rates, word times and drafts of the demo model on synthesised clips. Writes docs/reports/demo-accuracy.md,
# word-times.md and drafted-decoding.md.
eval: install $(REFERENCE)/.installed $(TRAINING)/.installed
	$(TRAINING)/bin/python -m tools.demo clips --clips $(EVAL_CLIPS) --out "$(STATE)/eval/clean"
	$(TRAINING)/bin/python -m tools.demo clips --clips $(EVAL_CLIPS) --snr 10 --out "$(STATE)/eval/10 dB SNR"
	$(BIN)/python -m tools.accuracy.evaluate "$(STATE)/eval/clean" "$(STATE)/eval/10 dB SNR" \
		--out docs/reports/demo-accuracy.md --reference-python $(REFERENCE)/bin/python
	$(BIN)/python -m tools.accuracy.word_times "$(STATE)/eval/clean" "$(STATE)/eval/10 dB SNR" \
		--out docs/reports/word-times.md
	$(BIN)/python -m tools.accuracy.drafts "$(STATE)/eval/clean" --out docs/reports/drafted-decoding.md

# Other programs for the same model, each installed from its package.
$(PEERS)/torch/.installed: tools/peers/requirements-torch.txt
	$(PYTHON) -m venv "$(PEERS)/torch"
	"$(PEERS)/torch/bin/pip" install $(PIP_FLAGS) '$(TORCH)'
	"$(PEERS)/torch/bin/pip" install $(PIP_FLAGS) --requirement $<
	touch "$@"

$(PEERS)/mlx-audio/.installed: tools/peers/requirements-mlx-audio.txt
	$(PYTHON) -m venv "$(PEERS)/mlx-audio"
	"$(PEERS)/mlx-audio/bin/pip" install $(PIP_FLAGS) --requirement $<
	touch "$@"

$(PEERS)/crispasr/.installed: tools/peers/requirements-crispasr.txt
	$(PYTHON) -m venv "$(PEERS)/crispasr"
	"$(PEERS)/crispasr/bin/pip" install $(PIP_FLAGS) '$(TORCH)'
	"$(PEERS)/crispasr/bin/pip" install $(PIP_FLAGS) --requirement $<
	touch "$@"

# CrispASR's own converter, which is not in its package.
$(PEERS)/convert-funasr-to-gguf.py:
	mkdir -p "$(PEERS)"
	curl --fail --silent --show-error --location --output "$@" \
		https://raw.githubusercontent.com/CrispStrobe/CrispASR/$(CRISPASR_COMMIT)/models/convert-funasr-to-gguf.py

# Measure this project and the others in turns; writes docs/reports/benchmarks.md. Half an hour with all installations, 24 GB
# of memory; PEERS_OPTIONS="--engines 'funasr-cli, native'" measures one program again and keeps the results of the others.
bench-peers: install $(PEERS)/torch/.installed $(PEERS)/mlx-audio/.installed $(PEERS)/crispasr/.installed \
		$(PEERS)/convert-funasr-to-gguf.py
	$(BIN)/python -m tools.peers --state "$(PEERS)" --out docs/reports/benchmarks.md $(PEERS_OPTIONS)
	$(BIN)/python -m tools.peers.one_step --state "$(PEERS)" --out docs/reports/one-step.md

# The same for Whisper with its true weights, compared with openai-whisper and faster-whisper; writes a report. Needs
# `make real-data`.
$(PEERS)/whisper/.installed: tools/peers/requirements-whisper.txt
	$(PYTHON) -m venv "$(PEERS)/whisper"
	"$(PEERS)/whisper/bin/pip" install $(PIP_FLAGS) '$(TORCH)'
	"$(PEERS)/whisper/bin/pip" install $(PIP_FLAGS) --requirement $<
	touch "$@"

bench-peers-whisper: real-data $(PEERS)/whisper/.installed
	$(BIN)/python -m tools.peers.whisper --state "$(PEERS)" --out docs/reports/whisper-peers.md $(PEERS_OPTIONS)

# Convert the published weights at every precision, transcribe, compare, measure: PASS or FAIL, and a block for an issue.
# Also compares with the PyTorch reference if it is installed by make .venv-reference/.installed (1.8 GB), or named in
# FUNASR_REFERENCE_PYTHON.
check-release: SET_UP = $(if $(wildcard $(REFERENCE)/.installed),$(REFERENCE)/bin/python)
check-release: REFERENCE_PYTHON ?= $(or $(FUNASR_REFERENCE_PYTHON),$(SET_UP))
check-release: install
	FUNASR_REFERENCE_PYTHON="$(REFERENCE_PYTHON)" $(BIN)/python -m tools.release "$(MODEL)" \
		$(if $(HUB),--hub "$(HUB)") $(if $(RECIPES),--recipes $(RECIPES)) $(if $(OUT),--out "$(OUT)") $(RELEASE_OPTIONS)

# Train the demo model for hours, or resume an earlier run; then put it in place.
demo-model: install $(TRAINING)/.installed
	$(TRAINING)/bin/python -m tools.demo train --state "$(STATE)/training"
	rm -rf "$(STATE)/demo"
	$(TRAINING)/bin/python -m tools.demo export --state "$(STATE)/training" --out "$(STATE)/demo"
	$(BIN)/funasr convert "$(STATE)/demo" funasr_cli/demo/model --languages zh,en --force

# Train the small translator for the tests in a few minutes, and put it in place.
demo-translator: $(TRAINING)/.installed
	$(TRAINING)/bin/python -m tools.demo.translator tests/data/translator

# Train the small SenseVoice for the tests from the demo model in half an hour, and put it in place.
demo-sense-voice: $(TRAINING)/.installed
	$(TRAINING)/bin/python -m tools.demo sense --state "$(STATE)/sense" --out "$(STATE)/sense-voice"
	rm -rf tests/data/sense_voice_small
	cp -r "$(STATE)/sense-voice" tests/data/sense_voice_small

clean:
	rm -rf $(VENV) $(REFERENCE) $(TRAINING) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage
