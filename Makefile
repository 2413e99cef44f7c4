# Everything on a machine that has Python >= 3.11 and make. Nothing is installed outside .venv.
#
#   make demo       train on procedural scenes, sample with that model and with the one that ships, write an index.html
#   make test       the test suite
#   make test-slow  the tests that take minutes
#   make test-torture  kills training twenty times; must end in the same bits
#   make lint       style and formatting
#   make clean      remove .venv, the demo's output and caches
#   make pictures     the pictures of README and docs, made with the model that ships; the viewer's needs chromium
#   make gpu-report   speed and memory of the published sizes on the accelerator that is here (GPU_FLAGS=--time=480)
#   make lpips-weights        fetch and convert the weights of LPIPS, once, into the user's cache
#   make .venv/.installed-reference    what some tests compare with (PyTorch); without it they are skipped
#
#   make PYTHON=/path/to/python3.12 ...   builds .venv with that Python

VENV := .venv
BIN := $(VENV)/bin
# Modules are compiled once, and not by each process that a test starts, whatever the shell says of writing them.
PYTEST := PYTHONDONTWRITEBYTECODE= PYTHONPYCACHEPREFIX="$(CURDIR)/$(VENV)/pycache" $(BIN)/python -m pytest
DEMO_DIR := runs/demo
DEMO_CONFIG := configs/toy.py:demo
DEMO_DATA := --config.data.dir=$(DEMO_DIR)/data
DEMO_SAMPLES := --mode=sample --config.sample.num_scenes=3
DEMO_PAGE := $(DEMO_DIR)/index.html

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test test-slow test-torture lint clean lpips-weights gpu-report pictures
.DEFAULT_GOAL := demo

demo: $(VENV)/.installed
	$(BIN)/python -m dfm_jax.main --config=$(DEMO_CONFIG) $(DEMO_DATA) --workdir=$(DEMO_DIR) --mode=train
	$(BIN)/python -m dfm_jax.main --workdir=$(DEMO_DIR) $(DEMO_SAMPLES)
	$(BIN)/python -m dfm_jax.main --workdir=toy $(DEMO_DATA) $(DEMO_SAMPLES) --out=$(DEMO_DIR)/shipped
	$(BIN)/python -m dfm_jax.studies.demo --out=$(DEMO_DIR) \
		"Trained here=$(DEMO_DIR)/samples" "The model that ships=$(DEMO_DIR)/shipped"
	@test -f $(DEMO_PAGE) || { echo "error: $(DEMO_PAGE) was not written" >&2; exit 1; }
	@echo "Look at: file://$(CURDIR)/$(DEMO_PAGE)"
	@if [ "$$(uname)" = Darwin ]; then open $(DEMO_PAGE) || true; \
	elif [ -n "$$DISPLAY$$WAYLAND_DISPLAY" ] && command -v xdg-open >/dev/null; then \
		xdg-open $(DEMO_PAGE) >/dev/null 2>&1 & \
	fi

test: $(VENV)/.installed-test
	$(PYTEST) --numprocesses=auto --maxprocesses=4 --dist=loadfile

test-slow: $(VENV)/.installed-test
	$(PYTEST) -m 'slow and not torture'

test-torture: $(VENV)/.installed-test
	$(PYTEST) -m torture -s

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

lpips-weights: $(VENV)/.installed
	$(BIN)/python -m dfm_jax.interop.lpips_weights --fetch

gpu-report: $(VENV)/.installed
	$(BIN)/python -m dfm_jax.profiling.gpu_report $(GPU_FLAGS)

# The same to the bit on the same machine and versions; elsewhere pixels differ in their last bits, as floats do.
pictures: $(VENV)/.installed-test
	$(BIN)/python examples/contact_sheet.py --out=docs/images/toy.png
	$(BIN)/python examples/turning.py --out=docs/images/turning.webp
	$(BIN)/python examples/calibration.py --out=docs/images/calibration.png
	$(BIN)/python examples/viewer_picture.py docs/images/viewer.png

clean:
	rm -rf $(VENV) $(DEMO_DIR) .jax_cache .pytest_cache .ruff_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The newest Python that is on the path, is new enough and runs (a version manager's stand-in may be there and not run).
$(BIN)/python:
	@for python in $(or $(PYTHON),python3.14 python3.13 python3.12 python3.11 python3 python); do \
		if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found="$$python"; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
		echo "error: no Python 3.11 or newer found$(if $(PYTHON), at $(PYTHON)); install one, or name it: make PYTHON=/path/to/python3.11" >&2; \
		exit 1; \
	fi; \
	if ! "$$found" -c 'import ensurepip, venv' 2>/dev/null; then \
		echo "error: $$found cannot make virtual environments; install its venv package (Debian, Ubuntu: python3-venv)" >&2; \
		exit 1; \
	fi; \
	echo "making $(VENV) with $$("$$found" --version)"; \
	"$$found" -m venv --clear $(VENV)

# The marks are set only after a complete installation; they are older than setup.py once that has changed.
# Modules are compiled when they are first imported: most never are.
$(VENV)/.installed: setup.py | $(BIN)/python
	$(BIN)/python -m pip install --quiet --no-compile --editable .
	@touch $@

$(VENV)/.installed-test: setup.py $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --no-compile --editable '.[test]'
	@touch $@

$(VENV)/.installed-reference: setup.py $(VENV)/.installed-test
	$(BIN)/python -m pip install --quiet --no-compile --editable '.[reference]'
	@touch $@
