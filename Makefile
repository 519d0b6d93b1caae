# The only entry point: people and CI call these.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
MILVUS := .milvus/.installed
# What a virtual environment needs on a bare Debian, the device stacks, and what their Python bindings are built
# with; installed where one is missing.
PACKAGES := python3-venv python3-dev strace gcc libc6-dev pkg-config swig pcscd vsmartcard-vpcd libpcsclite-dev \
	libfprint-2-2 gir1.2-fprint-2.0 libgirepository1.0-dev libcairo2-dev
export REKAM_DATA ?= $(abspath ../shared/data)

.PHONY: help setup test check format proto demo demo-station bench bench-scale fuzz clean

help:            ## list the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

setup: $(STAMP) $(MILVUS)  ## install everything, system packages too

$(STAMP): pyproject.toml
	@dpkg -s $(PACKAGES) >/dev/null 2>&1 || (apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(PACKAGES))
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install -q -e '.[devices]' --group dev
	@touch $(STAMP)

# A Milvus server for the tests, away from everything else: its client is older than ours, and is left out.
$(MILVUS): | $(STAMP)
	@rm -rf $(@D)
	$(BIN)/python -m pip install -q --no-deps --target $(@D) milvus==2.3.5
	@touch $@

test: setup      ## run every test
	$(BIN)/python -m pytest

check: setup     ## format, lint, types, layers, proto drift
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint
	$(BIN)/python -m pytest tests/test_proto.py

format: setup    ## format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

proto: setup     ## regenerate rekam/v1 from proto/
	PATH=$(BIN):$$PATH $(BIN)/python -m grpc_tools.protoc -I proto --python_out=. --grpc_python_out=. --mypy_out=. --mypy_grpc_out=. proto/rekam/v1/*.proto

demo: setup      ## enrol people over gRPC, bring some back under new NIKs (DATA=, IRISES=, FACES=folders of real ones)
	$(BIN)/python -m benchmarks.demo $(if $(DATA),--data $(DATA)) $(if $(IRISES),--irises $(IRISES)) $(if $(FACES),--faces $(FACES))

demo-station: setup ## two encounters of one person from virtual devices, to UNIQUE and to DUPLICATE, with pictures
	$(BIN)/python -m benchmarks.demo_station

bench: setup     ## measure every figure of the README, into benchmarks/results/ (several hours)
	$(BIN)/python -m benchmarks.accuracy --cache .bench-cache
	$(BIN)/python -m benchmarks.compare_speed --cache .bench-cache
	$(BIN)/python -m benchmarks.extraction_cost
	$(BIN)/python -m benchmarks.quality --cache .bench-cache
	$(BIN)/python -m benchmarks.foreign_templates
	$(BIN)/python -m benchmarks.stress --cache .bench-cache
	$(BIN)/python -m benchmarks.iris --cache .bench-cache
	$(BIN)/python -m benchmarks.iris_scan
	$(BIN)/python -m benchmarks.face --cache .bench-cache
	$(BIN)/python -m benchmarks.persons --cache .bench-cache
	$(BIN)/python -m benchmarks.check_population --cache .bench-cache
	$(BIN)/python -m benchmarks.check_synthetic_prints --cache .bench-cache
	$(BIN)/python -m benchmarks.identify --cache .bench-cache
	$(BIN)/python -m benchmarks.finger_code --cache .bench-cache
	$(BIN)/python -m benchmarks.face_scan
	$(BIN)/python -m benchmarks.check_scale_population
	$(BIN)/python -m benchmarks.gallery_stress
	$(BIN)/python -m benchmarks.milvus
	$(BIN)/python -m benchmarks.store_commits
	$(BIN)/python -m benchmarks.admission
	$(BIN)/python -m benchmarks.search_together
	$(BIN)/python -m benchmarks.request_memory
	$(BIN)/python -m benchmarks.load
	$(BIN)/python -m benchmarks.moving
	$(BIN)/python -m benchmarks.dedup --cache .bench-cache
	$(BIN)/python -m benchmarks.reliability kill
	$(BIN)/python -m benchmarks.reliability race
	$(BIN)/python -m benchmarks.reliability trace
	$(BIN)/python -m benchmarks.reliability full
	$(BIN)/python -m benchmarks.reliability corrupt
	$(BIN)/python -m benchmarks.reliability clock
	$(BIN)/python -m benchmarks.reliability soak
	$(BIN)/python -m benchmarks.slaps
	$(BIN)/python -m benchmarks.sbi
	$(BIN)/python -m benchmarks.live_assistance
	$(BIN)/python -m benchmarks.devices workers
	$(BIN)/python -m benchmarks.devices preview
	$(BIN)/python -m benchmarks.devices cards
	$(BIN)/python -m benchmarks.station ten-fingers
	$(BIN)/python -m benchmarks.station preview
	$(BIN)/python -m benchmarks.demo_station --results benchmarks/results/demo_station.json
	$(BIN)/python -m benchmarks.demo --data $(REKAM_DATA)/fingerprint/crossmatch --irises $(REKAM_DATA)/iris/casia_v1 --faces $(REKAM_DATA)/face/lfw --results benchmarks/results/demo.json

PEOPLE ?= 10000 100000 1000000
bench-scale: setup ## galleries of PEOPLE ("10000 100000 1000000"), resumable: hours, and 17 GB in .bench-cache/scale
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.scale $(foreach people,$(PEOPLE),--people $(people))
	$(BIN)/python -m benchmarks.scale_page

fuzz: setup      ## coverage-guided fuzzing of every parser, a minute each
	$(BIN)/python -m benchmarks.fuzz_parsers

clean:           ## forget the environment and everything built
	rm -rf $(VENV) .milvus build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
