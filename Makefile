PYTHON ?= python3
# Extra arguments for pip, for example an index with CPU-only torch.
PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo bench test test-slow test-extras test-flower test-ray test-sanitized kinds fuzz chaos faults hosts containers arm64 \
	lint types docs protos native wheels clean

demo: $(VENV)/native
	$(BIN)/fedaq run

test: $(VENV)/native
	$(BIN)/python -m pytest -m "not slow" -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test-slow: $(VENV)/native
	$(BIN)/python -m pytest -m slow

# What needs libraries that `make test` does without: MLflow, ONNX and its runtime.
test-extras: $(VENV)/native
	@echo "installing into $(VENV): a minute or more, and up to 6 GB if torch comes with CUDA"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt $(PIP_ARGS) \
		-e '.[onnx,mlflow]' onnxruntime
	$(BIN)/python -m pytest tests/server/test_tracking.py tests/server/test_exporting.py

# With Flower, in an environment of its own, since it asks for older libraries than those above.
FLOWER := $(VENV)/flower

test-flower: $(VENV)/native
	@echo "installing into $(FLOWER): a minute or more, and up to 6 GB if torch comes with CUDA"
	$(PYTHON) -m venv $(FLOWER)
	$(FLOWER)/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) \
		-e '.[client,server,flower]' 'flwr[simulation]==1.42.0' hypothesis pytest
	$(FLOWER)/bin/python -m pytest tests/flower
	$(FLOWER)/bin/python -m pytest -m slow tests/flower

# Clients that train on a Ray cluster: one that the tests start, of two workers.
test-ray: $(VENV)/native
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt $(PIP_ARGS) \
		-e '.[ray]'
	$(BIN)/python -m pytest tests/cluster

# Kinds of models, each trained beside fp32. torchvision and timm come alone: they ask for nothing
# that is not there, and would bring another build of torch.
kinds: $(VENV)/native
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt $(PIP_ARGS) \
		peft transformers
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt $(PIP_ARGS) \
		--no-deps timm torchvision
	REQUIRE_KINDS=1 $(BIN)/python -m pytest -m slow tests/kinds
	$(BIN)/python tests/kinds/run.py

FUZZ_ARGS ?= --messages 200000

fuzz: $(VENV)/native
	$(BIN)/python tests/fuzz/run.py $(FUZZ_ARGS)

# 20 clients, 40 rounds, three deaths of the server.
chaos: $(VENV)/native
	$(BIN)/python tests/chaos/run.py

# A fault at every call of a run on its files, in turn; on Linux, with a C compiler.
FAULTS_ARGS ?=

faults: $(VENV)/native
	$(BIN)/python tests/faults/run.py $(FAULTS_ARGS)

# Network namespaces; as root.
hosts: $(VENV)/native
	$(BIN)/python tests/netns/run.py

# docker-compose.yml for real; with podman as root where no Docker runs.
CONTAINERS_ARGS ?=

containers: $(VENV)/native
	$(BIN)/python tests/containers/run.py $(CONTAINERS_ARGS)

# A client in an emulated arm64 system; as root.
arm64: $(VENV)/native
	tests/containers/arm64.sh

bench: $(VENV)/native
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/codec.py
	$(BIN)/python benchmarks/optimizer.py
	$(BIN)/python benchmarks/optimizer.py --plans
	$(BIN)/python benchmarks/round.py --sizes 1 10 --clients 2 5 10 50 --bits 4
	$(BIN)/python benchmarks/round.py --sizes 10 --clients 10 --bits 32
	$(BIN)/python benchmarks/profile_round.py
	$(BIN)/python benchmarks/masks.py
	$(BIN)/python benchmarks/heartbeats.py
	$(BIN)/python benchmarks/viewers.py --tasks digits

lint: $(VENV)/native
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo --no-cache

# Twice: what Windows lacks is an error, too.
types: $(VENV)/native
	$(BIN)/mypy
	$(BIN)/mypy --platform win32 --cache-dir .mypy_cache/win32 common server client relay lab examples

# The site, into build/site; a broken link or an unknown name ends it.
docs: $(VENV)/native
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# With a compiler of protobuf 5.29, whose code runs on every later runtime: other libraries in a
# user's environment (Flower) ask for an older one than ours.
protos: $(VENV)/native
	$(PYTHON) -m venv $(VENV)/protoc
	$(VENV)/protoc/bin/python -m pip install --quiet --disable-pip-version-check grpcio-tools==1.71.2
	$(VENV)/protoc/bin/python -m grpc_tools.protoc -I protos --python_out=common --pyi_out=common \
		$(addprefix protos/fedaq/v1/,federation.proto archive.proto flower.proto)

# The codec's loops, anew from their sources in native/; whatever runs them does this as well.
native: $(VENV)/native

# Wheels for all platforms, from this one.
wheels: $(VENV)/native
	$(BIN)/python -m pip install --quiet --constraint constraints.txt $(PIP_ARGS) -e '.[wheels]'
	$(BIN)/python native/wheels.py dist

# The tests that reach the loops, once with every access and every number checked.
test-sanitized: $(VENV)/native
	$(BIN)/python native/sanitized.py

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache

# Not again where `installed` has just done it.
$(VENV)/native: $(wildcard native/*.c native/*.h) native/compile.py native/hook.py | $(VENV)/installed
	@if [ ! -e $@ ] || [ -n "$$(find native -name '*.[chp]*' -newer $@)" ]; then \
		echo "compiling native/"; $(BIN)/python -m pip install --quiet --no-deps \
		--disable-pip-version-check $(PIP_ARGS) -e .; fi
	@touch $@

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make PYTHON=python3.11 ..."; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt $(PIP_ARGS) -e '.[dev]'
	touch $@
	touch $(VENV)/native
