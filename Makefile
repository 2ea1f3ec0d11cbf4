# Every target does its own set-up: a virtual environment with what the project declares, nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
WORKERS ?= 2

# For `make demo`: your own checkpoint and picture.
CHECKPOINT ?=
IMAGE ?=
BENCH_CHECKPOINT := $(or $(CHECKPOINT),out/yolact_resnet50.pth)

.PHONY: demo test check format bench gpu gpu-pack tables clean

demo: $(READY)
	$(BIN)/python examples/demo.py --output out/demo $(if $(CHECKPOINT),--checkpoint "$(CHECKPOINT)") $(if $(IMAGE),--image "$(IMAGE)")

# One thread for each test process: more would only fight over the cores.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Measures on this machine and writes records under benchmarks/results/.
bench: $(READY) $(BENCH_CHECKPOINT)
	$(BIN)/python -m yolact_benchmarks.startup --results benchmarks/results
	$(BIN)/python -m yolact_benchmarks.postprocess --results benchmarks/results
	$(BIN)/python -m yolact_benchmarks.kernels --results benchmarks/results
	$(BIN)/python -m yolact_benchmarks.evaluator --results benchmarks/results
	$(BIN)/python -m yolact_benchmarks.export "$(BENCH_CHECKPOINT)" --results benchmarks/results

out/yolact_resnet50.pth: $(READY)
	$(BIN)/python examples/made_up_checkpoint.py yolact_resnet50 $@

# Everything that only a GPU can tell, on the machine that has one: the stages of docs/gpu.md in the project's own
# environment. GPU_BUNDLES names bundles with engines for it; GPU_STAGES some of the stages.
GPU_BUNDLES ?=
GPU_STAGES ?= first second

gpu: $(READY)
	$(BIN)/python -m yolact_benchmarks.gpu run $(GPU_STAGES) --output benchmarks/results $(if $(GPU_BUNDLES),--bundle $(GPU_BUNDLES))

# What travels to a machine with a GPU and without a network.
gpu-pack: $(READY)
	$(BIN)/python -m yolact_benchmarks.gpu pack

# Writes the tables of README.md and docs/ from the records.
tables: $(READY)
	$(BIN)/python -m yolact_benchmarks.tables

clean:
	rm -rf $(VENV) out dist build

$(READY): pyproject.toml .ci/install_torch.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python .ci/install_torch.py
	$(BIN)/python -m pip install --quiet --editable ".[all]" --group dev
	touch $(READY)
