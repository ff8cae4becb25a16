# `make demo` and `make test` need nothing but Python 3.11 and make: each creates .venv first if it is missing.
PYTHON ?= python3.11
VENV := .venv
READY := $(VENV)/.ready
MODEL ?= models/brain-mri-v2

.PHONY: demo test docs-check lint bench browser faults slow nights wheel lock clean

demo: $(READY)  ## score the sample scans with the shipped model: a table, the Parquet and the report
	$(VENV)/bin/python jobs/evaluate.py --model $(MODEL) --data samples --output out/demo

test: $(READY)  ## all tests; real Ray, a real S3 server, real Parquet readers
	$(VENV)/bin/python -m pytest --numprocesses 2 --dist loadscope --durations 20

docs-check: $(READY)  ## check links, commands and sentences of the manual, and run its runnable examples
	$(VENV)/bin/python -m docs.check

faults: $(READY)  ## the fault tests at full dose, an hour or more on two cores; writes docs/faults.md
	rm -f docs/faults.md
	FAULTS_TABLE=docs/faults.md $(VENV)/bin/python -m pytest tests/faults -m "" --timeout 3600

slow: $(READY)  ## the long tests of whole commands that `make test` leaves out
	$(VENV)/bin/python -m pytest tests/integration tests/jobs -m slow --timeout 3600

nights: $(READY)  ## simulated nights on a growing archive; writes docs/nights.md
	NIGHTS_TABLE=docs/nights.md $(VENV)/bin/python -m pytest tests/integration/test_nightly.py -m "" -k "five_nights or ten_ordinary"

wheel: $(READY)  ## install the wheel into an empty environment and score the samples with it from another folder
	$(VENV)/bin/python -m pytest tests/jobs/test_wheel.py -m ""

lint: $(READY)  ## check style, formatting and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

browser:  ## install Chromium from Debian's packages; without it, the tests that open reports are skipped
	command -v chromium || { apt-get update --quiet && apt-get install --quiet --yes --no-install-recommends chromium; }

PEERS := out/peers

bench: $(READY)  ## measure speeds on this machine, an hour on two cores; writes benchmarks/*.{json,md}
	-$(VENV)/bin/python -m pip install --quiet --no-deps --target $(PEERS) --upgrade -r benchmarks/peers/requirements.txt
	$(VENV)/bin/python benchmarks/bench.py
	PYTHONPATH=$(PEERS) $(VENV)/bin/python benchmarks/side_by_side.py
	$(VENV)/bin/python benchmarks/driver.py --output benchmarks/driver.json
	$(VENV)/bin/python benchmarks/million.py --output benchmarks/million.json

lock: $(READY)  ## renew requirements.lock from pyproject.toml
	$(VENV)/bin/python -m pip install --quiet uv
	$(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --extra dev --no-emit-index-url --upgrade pyproject.toml -o requirements.lock

clean:
	rm -rf $(VENV) out build *.egg-info

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement requirements.lock
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@
