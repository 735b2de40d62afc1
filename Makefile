# The two commands to know: `make quickstart` and `make test`.
PYTHON ?= python3
export OMP_NUM_THREADS = 1

.PHONY: quickstart test lint bench bench-more gpu lowest clean

quickstart: .venv/installed
	.venv/bin/asymzoo quickstart

test: .venv/installed-dev
	.venv/bin/python -m pytest -n 2

lint: .venv/installed-dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

# Less than ten minutes; fails if a figure is more than 15 % slower than in benchmark/results/performance.json.
bench: .venv/installed-dev
	.venv/bin/python -m tests.performance

# What bench leaves out, for it takes long: each prints JSON.
bench-more: .venv/installed-dev
	.venv/bin/python -m tests.performance.metanetworks
	.venv/bin/python -m tests.performance.phenomena
	.venv/bin/python -m tests.performance.bayesian
	.venv/bin/python -m tests.performance.hub

# Less than eight minutes on an H100 or H200, with that machine's own Python; see tests/performance/gpu.py.
gpu:
	$(PYTHON) -m tests.performance.gpu

# The lowest versions that pyproject.toml allows, but the torch of .venv: old ones bring CUDA.
lowest: .venv-lowest/installed
	.venv-lowest/bin/python -m pytest -n 2 -W ignore::DeprecationWarning

clean:
	rm -rf .venv .venv-lowest build *.egg-info quickstart .hypothesis .mypy_cache .ruff_cache

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --constraint constraints.txt --editable ".[all]"
	touch $@

.venv/installed-dev: .venv/installed
	.venv/bin/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

.venv-lowest/installed: .venv/installed
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/pip install --quiet uv
	.venv-lowest/bin/uv pip install --python .venv-lowest --resolution lowest-direct \
		$$(.venv/bin/pip freeze | grep ^torch==) --editable ".[all]"
	.venv-lowest/bin/uv pip install --python .venv-lowest --editable ".[dev]"
	touch $@
