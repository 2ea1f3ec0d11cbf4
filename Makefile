# Every target does its own set-up: a virtual environment with what the project declares, nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
WORKERS ?= 2
VENV_OPTIONS ?=
# Of property tests: quick, standard or thorough.
PROFILE ?= standard

# Packages of CUDA are for one major version: that of this machine's driver, or 13 without one. `make CUDA=12 test` chooses.
ifneq ($(origin CUDA),command line)
CUDA := $(or $(shell $(PYTHON) .ci/cuda_major.py),13)
endif
ifeq ($(filter 12 13,$(CUDA)),)
$(error CUDA=$(CUDA) is not supported: choose CUDA=12 or CUDA=13)
endif
EXTRAS_12 := all,cuda12,rtx-cuda12
EXTRAS_13 := all,cuda,rtx
READY := $(VENV)/.ready-cuda$(CUDA)

# For `make demo`: your own checkpoint and picture.
CHECKPOINT ?=
IMAGE ?=
BENCH_CHECKPOINT := $(or $(CHECKPOINT),out/yolact_resnet50.pth)

.PHONY: demo test check format bench storm gpu gpu-pack integrations jetpack6 jetpack7 workflows publisher mutants tables docs clean

demo: $(READY)
	$(BIN)/python examples/demo.py --output out/demo $(if $(CHECKPOINT),--checkpoint "$(CHECKPOINT)") $(if $(IMAGE),--image "$(IMAGE)")

# One thread for each test process: more would only fight over the cores. Compiled modules are kept, whatever the
# environment says: tests, and what they start, are compiled once and not in every process.
test: $(READY)
	OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -m "not checks" -n $(WORKERS) --dist worksteal --hypothesis-profile=$(PROFILE)

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m pytest -q -m checks

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Measures on this machine and writes records under benchmarks/results/.
bench: $(READY) $(BENCH_CHECKPOINT)
	$(BIN)/python -m yolact_benchmarks.studies.startup --results benchmarks/results
	$(BIN)/python -m yolact_benchmarks.studies.postprocess --results benchmarks/results
	$(BIN)/python -m yolact_benchmarks.studies.kernels --results benchmarks/results
	$(BIN)/python -m yolact_benchmarks.studies.evaluator --results benchmarks/results
	$(BIN)/python -m yolact_benchmarks.studies.export "$(BENCH_CHECKPOINT)" --results benchmarks/results

# Tries to break the project, 10,000 times: twenty minutes on two cores. STORM are further options, such as --seed 7.
STORM ?=

storm: $(READY)
	$(BIN)/python -m yolact_benchmarks.studies.storm $(STORM)

out/yolact_resnet50.pth: $(READY)
	$(BIN)/python examples/made_up_checkpoint.py yolact_resnet50 $@

# Everything that only a GPU can tell, on the machine that has one: the stages of docs/gpu.md in the project's own
# environment. GPU_BUNDLES names bundles with engines for it; GPU_STAGES some of the stages. On a Jetson, whose TensorRT
# is a package of the system's Python: make VENV_OPTIONS=--system-site-packages gpu.
GPU_BUNDLES ?=
GPU_STAGES ?= first second

gpu: $(READY)
	$(BIN)/python -m yolact_benchmarks.studies.gpu run $(GPU_STAGES) --output benchmarks/results $(foreach bundle,$(GPU_BUNDLES),--bundle $(bundle))

# What travels to a machine with a GPU and without a network.
gpu-pack: $(READY)
	$(BIN)/python -m yolact_benchmarks.studies.gpu pack

# Tests with real components, each in an environment of its own below out/integrations; 15 minutes for all together.
# INTEGRATIONS names some of them.
INTEGRATIONS ?=

integrations:
	$(PYTHON) .ci/integrations.py $(INTEGRATIONS)

# The tests of what runs on a robot, with the Python, NumPy and CUDA of its JetPack; writes a record. The interpreters of
# that name must be here; no Jetson and no GPU is needed.
jetpack6 jetpack7:
	$(PYTHON) .ci/integrations.py $@ --results benchmarks/results

# The run lines of .github/workflows, each job in a fresh clone of the last commit; JOBS names some of them, such as
# "packages.wheel --python 3.13", or is --list.
JOBS ?=

workflows: $(READY)
	$(BIN)/python .ci/workflows.py $(JOBS)

# Writes what follows from the owner, home and contact in pyproject.toml: SECURITY.md, CITATION.cff, issue forms, README.
publisher: $(READY)
	$(BIN)/python .ci/publisher.py

# Do the tests notice? Small faults, one at a time, in modules whose errors would be wrong results: docs/mutants.md. It
# takes hours, and goes on where it was stopped; MUTANTS="nms --sample 40" is some of one module's.
MUTANTS ?=

mutants: $(READY)
	OMP_NUM_THREADS=1 nice -n 10 $(BIN)/python -m yolact_benchmarks.studies.mutants $(MUTANTS)

# Writes the tables of README.md and docs/ from the records.
tables: $(READY)
	$(BIN)/python -m yolact_benchmarks.studies.tables

# The documentation with its API reference, as pages in out/docs that need no server and no network.
DOCS := out/docs-environment

docs: $(DOCS)/.ready
	$(DOCS)/bin/zensical build --clean --strict

$(DOCS)/.ready: pyproject.toml
	$(PYTHON) -m venv --clear $(DOCS)
	$(DOCS)/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	$(DOCS)/bin/python -m pip install --quiet --group docs
	touch $@

clean:
	rm -rf $(VENV) out dist build .cache

# An environment of the other CUDA is made anew: its PyTorch may hold packages of that CUDA. (.ready is of 13.)
$(READY): pyproject.toml .ci/install_torch.py
	$(if $(filter-out $(READY) $(if $(filter 13,$(CUDA)),$(VENV)/.ready),$(wildcard $(VENV)/.ready*)),@echo "$(VENV) is not for CUDA $(CUDA): it is made anew"; rm -rf $(VENV))
	$(PYTHON) -m venv $(VENV_OPTIONS) $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python .ci/install_torch.py --cuda $(CUDA)
	$(BIN)/python -m pip install --quiet --editable ".[$(EXTRAS_$(CUDA))]" --group dev
	touch $(READY)
