# SPDX-License-Identifier: GPL-3.0-or-later
# Everything does its own set-up, once, from nothing but a checkout, root or sudo, and the package registries.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-print-directory --no-builtin-rules

export PATH := $(CURDIR)/.venv/bin:$(PATH)
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
export ANSIBLE_COLLECTIONS_PATH := $(CURDIR)/build/collections
export CONTAINERS_CONF := $(CURDIR)/tests/lab/containers.conf

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/virtuoso-grid
LAB := /usr/bin/python3 $(CURDIR)/tests/lab/lab.py
PYTEST := python -m pytest
JUNIT = --junitxml=build/junit/$@.xml
# narrows a part down: make test-unit ARGS="-k units -x", make test-molecule SCENARIO=provider, make bench AREA=images
ARGS ?=
SCENARIO ?=
AREA ?=
SCENARIOS := $(sort $(patsubst extensions/molecule/%/molecule.yml,%,$(wildcard extensions/molecule/*/molecule.yml)))
# Scenarios that leave the lab's hosts alone: make test runs them beside those that don't.
OWN_HOSTS := order provider

.PHONY: help setup lab demo picture test lint test-sanity test-unit test-integration test-molecule test-walk test-faults test-each \
	bench package clean distclean

help:
	@echo "make demo              the main job end to end, in a lab of its own"
	@echo "make test              lint, test-sanity, test-unit, test-integration, test-molecule, test-walk"
	@echo "make test-faults       the long matrix of faults"
	@echo "make test-each         long tests on both providers, which make test runs on one"
	@echo "make bench             every benchmark beside its peers; AREA=images runs one, with CASE=slow-first the cases of it that begin so"
	@echo "make lab               start the lab; make setup only prepares the controller"
	@echo "make package           the collection as an archive in build/"
	@echo "make clean             remove the lab and build/; distclean removes the cache as well"

setup:
	@tests/lab/setup.sh

lab: setup
	@$(LAB) up

demo: lab
	@ansible-playbook -i inventory/lab tests/lab/demo.yml $(ARGS)

# draws docs/demo.svg from what the demo left
picture: setup
	@python tests/lab/picture.py

test: setup
	@python tests/lab/parts.py test-integration $(addprefix test-molecule-,$(filter-out $(OWN_HOSTS),$(SCENARIOS))) \
		--beside lint test-sanity test-unit test-walk $(addprefix test-molecule-,$(OWN_HOSTS))

lint: setup
	@ruff format --check .
	@ruff check .
	@mypy -p ansible_collections.virtuoso.grid.plugins
	@PYTHONPATH=build/collections lint-imports --no-logo
	@yamllint --strict .
	@ansible-lint --offline
	@tests/lab/publishable.sh

test-sanity: setup
	@tests/lab/sanity.sh $(ARGS)

test-unit: setup
	@$(PYTEST) tests/unit $(JUNIT) --cov=plugins --cov-report=term:skip-covered $(ARGS)

test-integration: lab
	@$(PYTEST) tests/integration $(JUNIT) $(ARGS)

test-molecule: $(if $(APART),setup,lab)
	@python tests/lab/molecule.py $(SCENARIO)

# the README's walk, on two bare hosts of its own
test-walk: setup
	@$(PYTEST) tests/walk -s $(JUNIT) $(ARGS)

test-faults: lab
	@$(PYTEST) tests/faults $(JUNIT) $(ARGS)

# tests that make test leaves out, or runs on one provider only
test-each: lab
	@VIRTUOSO_TEST_EACH=1 $(PYTEST) $(addprefix tests/integration/test_,$(addsuffix .py,failing_hosts interrupted life machine paging transfer versions)) $(ARGS)

bench: lab
	@python tests/bench/bench.py $(AREA)

package: setup
	@ansible-galaxy collection build --force --output-path build .

clean:
	@$(LAB) down
	@rm -rf build .venv .ansible

distclean: clean
	@$(LAB) forget
	@rm -rf $(CACHE)
