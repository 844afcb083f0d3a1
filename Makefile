# Everything runs in .venv, made here from any Python 3.11 to 3.14. `make` alone lists the commands.

PYTHON ?= $(firstword $(foreach name,python3 python3.14 python3.13 python3.12 python3.11,$(shell \
	$(name) -c 'import sys; (3, 11) <= sys.version_info < (3, 15) and print("$(name)")' 2>/dev/null)))
VENV := .venv
RUN := $(VENV)/bin
PIP := $(RUN)/python -m pip --disable-pip-version-check
CORE := $(VENV)/.installed-core
DEV := $(VENV)/.installed-dev
PAGE := $(VENV)/.installed-page

# PyPI's torch for Linux brings gigabytes of CUDA. TORCH_INDEX=URL of PyTorch's CPU index spares them.
TORCH := $(shell sed -n 's/^ *"\(torch[<>=][^"]*\)".*/\1/p' pyproject.toml)

DEFAULT_VOICE := cat_tts/pretrained/mini
DEMO_TEXT := The quick brown fox jumps over the lazy dog.
DEMO_OUTPUT := demo.wav

.DEFAULT_GOAL := help
.PHONY: help demo app test slow lint format stale

help: ## List these commands.
	@sed -n 's/^\([a-z]*\):.*## /  make \1: /p' Makefile

demo: $(CORE) ## Clone the voice of the bundled prompt into demo.wav.
	$(RUN)/cat-tts clone $(DEFAULT_VOICE)/prompt.flac --prompt-text "$$(cat $(DEFAULT_VOICE)/prompt.txt)" \
		--text "$(DEMO_TEXT)" -o $(DEMO_OUTPUT)
	@echo "The cloned voice is in $(CURDIR)/$(DEMO_OUTPUT). The page in the browser: make app"

app: $(PAGE) ## Open the page in the browser; it prints its address.
	$(RUN)/python app.py

test: lint ## Run every check: lint, types, import layers, and the tests but the slow ones.
	$(RUN)/python -m pytest --numprocesses auto --dist loadfile

slow: $(DEV) ## Run the tests marked slow.
	$(RUN)/python -m pytest -m slow

lint: $(DEV) ## Run ruff, the import contract and pyright.
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/python $(RUN)/lint-imports
	$(RUN)/python -m pyright

format: $(DEV) ## Let ruff mend and format the code.
	$(RUN)/ruff check --fix .
	$(RUN)/ruff format .

# The stamp holds the folder it was made in: a moved checkout or a removed Python makes it stale.
ifneq ($(shell $(RUN)/python -c 'print(open("$(CORE)").read())' 2>/dev/null),$(CURDIR))
$(CORE): stale
endif

$(CORE): pyproject.toml
	@test -n "$(PYTHON)" || { echo "No Python 3.11 to 3.14 found; install one or name it: make PYTHON=/path/to/python"; exit 1; }
	rm -f $(RUN)/python*
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade pip
	$(if $(TORCH_INDEX),$(PIP) install --no-deps --index-url $(TORCH_INDEX) "$(TORCH)")
	$(PIP) install --editable .
	@printf '%s' "$(CURDIR)" > $(CORE)

$(PAGE): $(CORE)
	$(PIP) install --editable ".[demo]"
	@touch $(PAGE)

$(DEV): $(CORE)
	$(PIP) install --editable ".[dev]"
	@touch $(DEV)
