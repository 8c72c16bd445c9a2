# Two commands: `make demo` and `make test`. Each sets up everything it needs.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check bench docs clean

demo: .venv/ready
	$(BIN)/medssl demo --out demo

test: .venv/ready
	$(BIN)/pytest -n 2

check: .venv/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest tests/docs

bench: .venv/bench
	$(BIN)/python -m benchmarks

docs: .venv/ready
	$(BIN)/mkdocs build --strict

clean:
	rm -rf .venv demo site

.venv/bench: .venv/ready
	$(BIN)/pip install --quiet -c constraints.txt -e '.[bench]'
	touch $@

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev,docs,tensorboard,cluster,text]'
	touch $@
