# make demo   sets everything up and runs the main job (IMAGE=in.tif takes your own image)
# make test   sets everything up and runs the tests
# make check  ruff and mypy
# make bench  every job and tool side by side, about ten minutes; make bench-full the large scenes too, about an hour
# PYTHON=python3.12 chooses the interpreter.

PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
PEERS := benchmarks/.venv-peers
IMAGE ?=

.PHONY: demo test check bench bench-full clean

demo: $(READY)
	$(VENV)/bin/python -m benchmarks.demo $(IMAGE)

test: $(READY)
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile

check: $(READY)
	$(VENV)/bin/ruff check daskraster tests benchmarks
	$(VENV)/bin/ruff format --check daskraster tests benchmarks
	$(VENV)/bin/mypy

bench: $(READY) $(PEERS)/.ready
	$(VENV)/bin/python -m benchmarks.bench

bench-full: $(READY) $(PEERS)/.ready
	$(VENV)/bin/python -m benchmarks.bench --full

# The tools compared, in an environment of their own: what they need must not decide what daskraster is tested with.
$(PEERS)/.ready: benchmarks/peers.txt $(READY)
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --requirement benchmarks/peers.txt
	@touch $@

# The interpreter is looked at first, so that a too old one is told in one line and not by a failing install.
$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 12))' || \
	  { echo "daskraster needs Python 3.12 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1). Choose another: make PYTHON=python3.13 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[test,jobqueue]'
	@touch $(READY)

clean:
	rm -rf $(VENV) $(PEERS) demo build dist
