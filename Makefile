# make run    sets everything up, tunes a model on scikit-learn's digits, exports the best one
# make test   sets everything up, runs all tests but the long ones
# make check  linters, types and the quick tests
# make anchors whole studies, for the accuracy that they reach
# make faults the long tests that make test leaves out: more faults, all databases, all data sources
# Each installs into .venv first, when pyproject.toml or constraints.txt is newer.

PYTHON ?= python3
# cpu or gpu: which TensorFlow to install.
TENSORFLOW ?= cpu
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-$(TENSORFLOW)
STUDY ?= studies/digits-mlp.yaml
WORKERS ?= 2

.PHONY: install run test faults anchors storm check lint schema clean

install: $(STAMP)

# The stamp comes last: an installation that was broken off starts again.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --compile --constraint constraints.txt \
		--editable '.[$(TENSORFLOW),cmaes,mysql,embedded,s3,dev]'
	$(BIN)/python -m compileall -q hpo models
	touch $@

run: install
	$(BIN)/hpo run $(STUDY) --workers $(WORKERS)

test: install
	$(BIN)/python -m pytest -m 'not long and not anchor' -n 2 --dist worksteal

faults: install
	$(BIN)/python -m pytest -m long -n 2 --dist worksteal

# Accuracies that the studies reach, and KerasTuner's large networks.
anchors: install
	$(BIN)/python -m pytest -m anchor -n 0

# The random storm with as many seeds as asked: make storm SEEDS=10
SEEDS ?= 3
storm: install
	STORM_SEEDS=$(SEEDS) $(BIN)/python -m pytest tests/faults/test_storm.py

# Folders whose every test needs Keras are not even collected: that would import it.
KERAS_TESTS := models training export worker/test_trainers.py end_to_end
check: lint
	$(BIN)/python -m pytest -m 'not keras and not slow and not long and not anchor' -n 2 --dist worksteal \
		$(KERAS_TESTS:%=--ignore=tests/%)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The editors' schema of study files, from the code.
schema: install
	$(BIN)/hpo schema > studies/study.schema.json

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache
