# make install, test, lint, format; make train: a solver for 4x4 Sudoku; make demo: train and watch it.
# All set up a virtual environment of their own in .venv; VENV=... and PYTHON=... choose others.
PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python

# The MLX build for this machine: Metal on a Mac, CUDA where an NVIDIA driver answers, else the CPU.
ifeq ($(shell uname -s),Darwin)
EXTRA = metal
else ifeq ($(shell nvidia-smi -L >/dev/null 2>&1 && echo yes),yes)
EXTRA = cuda
else
EXTRA = cpu
endif

# From the default index, PyTorch for Linux brings several gigabytes of CUDA libraries.
ifeq ($(shell uname -s),Linux)
TORCH_INDEX = --index-url https://download.pytorch.org/whl/cpu
endif

.PHONY: install test lint format train demo clean

install: $(VENV)/demo.stamp

train: $(VENV)/demo.stamp
	$(RUN) dataset/build_sudoku_dataset.py --generate 4 --num-train 20000 --num-test 500 \
		--extra-givens 6 --output-dir data/sudoku4x4 --overwrite
	@rm -rf checkpoints/demo
	$(RUN) pretrain.py experiment=sudoku4x4 checkpoint_path=checkpoints/demo

# Of the puzzles held out, up to three on which the first step does not suffice: this model's own.
demo: train
	@echo "Of the 500 puzzles held back, those on which this model corrects itself longest:"
	@$(RUN) single_inference.py --checkpoint checkpoints/demo --data data/sudoku4x4 \
		--index $$($(RUN) tools/hardest.py checkpoints/demo data/sudoku4x4)
	@printf '%s\n' "A step that changes cells is the model correcting itself. Go on with" \
		"  $(VENV)/bin/trm solve --checkpoint checkpoints/demo ...2.1..3.....2.   a puzzle of yours" \
		"  $(VENV)/bin/trm demo --checkpoint checkpoints/demo                     on a page in your browser" \
		"  $(VENV)/bin/trm eval checkpoints/demo --evaluators rules               how many of 500 it solves" \
		"docs/index.md leads to everything else."

test: $(VENV)/test.stamp
	$(RUN) -m pytest -rs

lint: $(VENV)/test.stamp
	$(VENV)/bin/ruff check && $(VENV)/bin/ruff format --check

format: $(VENV)/test.stamp
	$(VENV)/bin/ruff check --fix && $(VENV)/bin/ruff format

clean:
	rm -rf $(VENV) data/sudoku4x4 checkpoints/demo

$(VENV)/demo.stamp: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=...")'
	@echo "Installing into $(VENV); this takes a minute or two."
	@test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	@$(RUN) -m pip install --quiet --disable-pip-version-check -e ".[$(EXTRA)]"
	@touch $@

$(VENV)/test.stamp: $(VENV)/demo.stamp
	$(RUN) -m pip install --quiet --disable-pip-version-check -e ".[$(EXTRA),test]"
	$(RUN) -c 'import torch' 2>/dev/null || $(RUN) -m pip install --quiet --disable-pip-version-check \
		--retries 0 --timeout 20 $(TORCH_INDEX) "torch>=2.6" || \
		echo "skipped: no PyTorch could be installed, so tests that compare with it will not run"
	touch $@
