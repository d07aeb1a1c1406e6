# Everything happens in .venv; `make clean` forgets it. TORCH_INDEX may name a package index that has the torch build wanted.
PYTHON ?= python3
TORCH_INDEX ?=
SUDO ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --constraint constraints.txt

.PHONY: demo test test-system slow test-docs coverage check check-wheel docs clean

demo: $(VENV)/likely
	$(BIN)/likely demo

# Three files at a time, of a thread each: what waits for a browser or another process leaves its core to the others.
test: $(VENV)/developer
	$(BIN)/python -m pytest -n 3 --dist loadfile

# A browser and a database server by the system's packages, for the tests that need them; without them these are skipped.
test-system:
	@command -v chromium > /dev/null && ls /usr/lib/postgresql/*/bin/initdb > /dev/null 2>&1 \
	  || { $(SUDO) apt-get update --quiet=2 && $(SUDO) apt-get install --yes --quiet=2 chromium postgresql; }

slow: $(VENV)/developer
	$(BIN)/python -m pytest -m slow

# Every block of README, docs/ and a model card, those too that take more than a few seconds.
test-docs: $(VENV)/developer
	$(BIN)/python -m pytest tests/test_docs.py -m 'slow or not slow'

# Inference is arithmetic, and its own tests reach every line of it.
coverage: $(VENV)/developer
	$(BIN)/coverage run -m pytest tests/inference
	$(BIN)/coverage report

check: $(VENV)/developer
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest --doctest-modules src --ignore=src/likely/server/store/migrations
	$(BIN)/python docs/generate.py --check
	$(BIN)/mkdocs build --quiet

# The wheel is built from the sdist, so that installing it checks both. It must hold every file of src/ and run away from the
# checkout, in an environment that has nothing else.
check-wheel: $(VENV)/developer
	rm -rf dist
	$(BIN)/python -m build
	folder=$$(mktemp -d) && trap "rm -rf $$folder" EXIT && unset PYTHONPATH \
	  && $(MAKE) --no-print-directory VENV=$$folder/venv $$folder/venv/torch \
	  && $$folder/venv/bin/python -m pip install --quiet --constraint constraints.txt dist/*.whl \
	  && git -C src ls-files -z likely | (cd $$folder/venv/lib/python3*/site-packages && xargs -0 ls > /dev/null) \
	  && cd $$folder && venv/bin/likely --version && venv/bin/likely demo

docs: $(VENV)/developer
	$(BIN)/python docs/generate.py
	$(BIN)/mkdocs build

clean:
	rm -rf $(VENV)

# torch comes first and by itself, so that no other package pulls a build of it that nobody asked for. From TORCH_INDEX it
# comes without what it needs: that follows with likely, from the index that pip uses for everything.
$(VENV)/torch: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) $(if $(strip $(TORCH_INDEX)),--no-deps --index-url $(TORCH_INDEX)) torch
	@touch $@

$(VENV)/likely: $(VENV)/torch pyproject.toml
	$(PIP) --editable .
	@touch $@

$(VENV)/developer: $(VENV)/likely
	$(PIP) --editable '.[dev]'
	@touch $@
