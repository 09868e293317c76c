# Two commands: `make quickstart` and `make test`. Both work in a fresh clone with Python >= 3.11.
PYTHON ?= python3
BIN := .venv/bin
RUN := runs/quickstart
# PyTorch reads the released checkpoints in tests; `make test TORCH=` leaves it and those tests out.
TORCH ?= torch==2.13.0

.PHONY: quickstart test check clean

quickstart: .venv/installed
	$(BIN)/python -m nt_jax.main --config=configs/quickstart.py --workdir=$(RUN)
	$(BIN)/python -m experiments.real_noise --output=$(RUN)/real_noise.png

test: .venv/installed-test check
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

check: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy nt_jax

.venv/installed: requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

.venv/installed-test: .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check $(TORCH) -e ".[train,test,export,app,docs]"
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps \
		"jax2onnx>=0.17,<0.18" "apache-beam>=2.77,<2.78" "spandrel>=0.4.2,<0.5"
	touch $@

clean:
	rm -rf .venv .cache build *.egg-info
