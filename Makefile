# Two commands need nothing but Python 3.11 and make: `make demo` and `make test`.
PYTHON ?= python3.11
VENV := .venv
READY := $(VENV)/.ready
MODEL ?= models/brain-mri-v1

.PHONY: demo test docs-check lint bench browser faults nights wheel lock clean

demo: $(READY)  ## score the sample scans with the shipped model: a table, the Parquet and the report
	$(VENV)/bin/python jobs/evaluate.py --model $(MODEL) --data samples --output out/demo

test: $(READY)  ## all tests; real Ray, a real S3 server, real Parquet readers
	$(VENV)/bin/python -m pytest

docs-check: $(READY)  ## the manual: links, commands and sentences; its runnable examples are run
	$(VENV)/bin/python -m docs.check

faults: $(READY)  ## the full dose of every fault, an hour or more on two cores; writes docs/faults.md
	rm -f docs/faults.md
	FAULTS_TABLE=docs/faults.md $(VENV)/bin/python -m pytest tests/faults -m "" --timeout 3600

nights: $(READY)  ## simulated nights on a growing archive; writes docs/nights.md
	NIGHTS_TABLE=docs/nights.md $(VENV)/bin/python -m pytest tests/integration/test_nightly.py -m "" -k "five_nights or ten_ordinary"

wheel: $(READY)  ## install the wheel into an empty environment and score the samples with it from another folder
	$(VENV)/bin/python -m pytest tests/jobs/test_wheel.py -m ""

lint: $(READY)  ## style, formatting, strict types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

browser:  ## Chromium for the tests that open the reports, from Debian's packages; they are skipped without
	command -v chromium || { apt-get update --quiet && apt-get install --quiet --yes --no-install-recommends chromium; }

bench: $(READY)  ## speeds side by side on this machine, into benchmarks/results.{json,md}
	$(VENV)/bin/python benchmarks/bench.py

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
