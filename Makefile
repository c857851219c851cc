# SPDX-License-Identifier: GPL-2.0-only
# What a person runs. kbuild makes the module (kernel/Kbuild), CMake the rest (CMakeLists.txt).

# The running kernel, or else the newest one, whose headers are installed.
KVER ?= $(shell { ls -d /lib/modules/*/build | sort -V; ls -d /lib/modules/$$(uname -r)/build; } \
	2>/dev/null | cut -d/ -f4 | tail -n 1)
# Installed, or unpacked (scripts/kernels.sh).
KDIR ?= $(firstword $(wildcard /lib/modules/$(KVER)/build \
	$(CURDIR)/build/headers/$(KVER)/usr/src/linux-headers-$(KVER)) /lib/modules/$(KVER)/build)
# The root above the kernel's own modules, where that is not /: kernel/Kbuild looks at dm-mod.ko.
KROOT ?= $(patsubst %/lib/modules/$(KVER),%,$(firstword $(wildcard \
	$(addsuffix /lib/modules/$(KVER),$(CURDIR)/build/kernels/$(KVER) $(KDIR)/..))))
PREFIX ?= /usr/local
# No warning is accepted; make WERROR= builds on a kernel or compiler that has new ones.
WERROR ?= -Werror
KERNEL ?= um
CASE ?= *
# Machines side by side; run.sh knows how many are good.
JOBS ?=
# Histories of the simulator, and the power cuts of each.
SEEDS ?= 1-10000
CUTS ?= 100
RUNS ?= 100
# Planted bugs, by name; and the seeds in which each must be found.
MUTANTS ?=
MUTANT_SEEDS ?= 2000
# Of each fuzzer.
MINUTES ?= 10

CMAKE_DIR := build/cmake
MODULE_DIR = build/module/$(KVER)

.PHONY: all
all: module tools

.PHONY: help
help:
	@echo 'Build:    make [all]          the module and the tool'
	@echo '          make module         dm_remap.ko in $(MODULE_DIR)   [KVER=$(KVER)]'
	@echo '          make tools          dm-remapctl in $(CMAKE_DIR)'
	@echo '          make install        [DESTDIR=] [PREFIX=$(PREFIX)] [KVER=]'
	@echo '          make deps           install the Debian packages that build and tests need'
	@echo '          make clean'
	@echo 'Test:     make test-vm        one case or all in user-mode Linux, in seconds   [CASE=gtest filter]'
	@echo '                              or in an emulated machine   [KERNEL=um|debug|6.1|6.12|backports|kcsan|all]'
	@echo '          make test           everything, on all kernels'
	@echo '          make test-unit      the core, in user space'
	@echo '          make test-32bit     the module builds and links for a 32-bit kernel'
	@echo '          make test-sim       the core, on disks that fail and lose power'
	@echo '          make sim            the same, longer  [SEEDS=$(SEEDS)] [CUTS=$(CUTS)]'
	@echo '          make sim-mutants    do it and the unit tests find planted bugs?   [MUTANTS=names]'
	@echo '          make test-fuzz      hostile spares and texts, against core and tool'
	@echo '          make fuzz           the same, longer  [MINUTES=$(MINUTES)]'
	@echo '          make coverage       how much of the core these tests run, and why not the rest'
	@echo '          make test-cli       dm-remapctl on files'
	@echo '          make kill-storm     power cuts in the midst of failing writes   [RUNS=$(RUNS)] [KERNEL=]'
	@echo '          make test-debug     the VM cases with KASAN, and again while allocations fail'
	@echo '          make test-kcsan     on a kernel that sees data races of the module   [CASE=]'
	@echo '          make check-style    checkpatch, sparse, clang-format, clang-tidy, shellcheck, and'
	@echo '                              whether the docs know each status of the block layer'
	@echo '          make bench          what it costs, beside dm-linear: a table, JSON and a plot'
	@echo 'Look:     make demo           a disk with bad sectors, remapped, in a virtual machine'

# --- module ---------------------------------------------------------------------------------------

# Each kernel gets a tree of links to the sources, so builds for several kernels share no object and
# need no clean in between.
kernel_sources := $(shell find kernel \( -name '*.[ch]' -o -name Kbuild \) ! -name '*.mod.c')
staged = $(kernel_sources:kernel/%=$(MODULE_DIR)/%)
# W=1 checks more; kbuild rebuilds what a change of these flags concerns.
kbuild = $(MAKE) $(if $(findstring -um-,$(KVER)),ARCH=um) -C $(KDIR) M=$(CURDIR)/$(MODULE_DIR) W=1 KCFLAGS=$(WERROR) \
	$(addprefix INSTALL_MOD_PATH=,$(KROOT))

.PHONY: module
module: $(staged)
	@test -d '$(KDIR)' || { echo "No kernel headers at '$(KDIR)': make deps" >&2; exit 1; }
	@find -L $(MODULE_DIR) -type l -delete # links whose source is gone
	+$(kbuild) modules

$(MODULE_DIR)/%: kernel/%
	@mkdir -p $(@D)
	@ln -sfn $(abspath $<) $@

# --- user space -----------------------------------------------------------------------------------

cmake_build = cmake --build $(CMAKE_DIR) --target
# make -s: only what fails.
quietly = $(if $(findstring s,$(firstword -$(MAKEFLAGS))),-- --quiet)

.PHONY: tools unit-programs sim-programs cli-programs vm-programs test-programs bench-programs
tools: $(CMAKE_DIR)/build.ninja
	$(cmake_build) dm-remapctl $(quietly)

unit-programs: $(CMAKE_DIR)/build.ninja
	$(cmake_build) unit-tests $(quietly)

sim-programs: $(CMAKE_DIR)/build.ninja
	$(cmake_build) sim sim-sanitized $(quietly)

vm-programs: $(CMAKE_DIR)/build.ninja
	$(cmake_build) vm-programs $(quietly)

bench-programs: $(CMAKE_DIR)/build.ninja
	$(cmake_build) bench-programs $(quietly)

# The tests of the tool may be several programs.
cli-programs test-programs: $(CMAKE_DIR)/build.ninja
	$(cmake_build) all $(quietly)

$(CMAKE_DIR)/build.ninja:
	cmake -S . -B $(CMAKE_DIR) -G Ninja -DCMAKE_INSTALL_PREFIX=$(PREFIX) $(CMAKE_FLAGS)

# For those who want to see it work and test nothing, without what the tests need.
QUICK_DIR := build/quick

.PHONY: quick-tool
quick-tool: $(QUICK_DIR)/build.ninja
	cmake --build $(QUICK_DIR) --target dm-remapctl $(quietly)

$(QUICK_DIR)/build.ninja:
	cmake -S . -B $(QUICK_DIR) -G Ninja -DREMAP_QUICK=ON

# With another compiler, so in a tree of their own.
FUZZ_DIR := build/fuzz

.PHONY: fuzz-programs
fuzz-programs: $(FUZZ_DIR)/build.ninja
	cmake --build $(FUZZ_DIR) --target fuzzers $(quietly)

$(FUZZ_DIR)/build.ninja:
	scripts/deps.sh build test fuzz
	CC=clang CXX=clang++ cmake -S . -B $(FUZZ_DIR) -G Ninja -DREMAP_FUZZ=ON

# Likewise.
COVERAGE_DIR := build/coverage

.PHONY: coverage-programs
coverage-programs: $(COVERAGE_DIR)/build.ninja
	cmake --build $(COVERAGE_DIR) --target unit-tests sim fuzzers $(quietly)

$(COVERAGE_DIR)/build.ninja:
	scripts/deps.sh build test coverage
	CC=clang CXX=clang++ cmake -S . -B $(COVERAGE_DIR) -G Ninja -DREMAP_COVERAGE=ON

# --- install --------------------------------------------------------------------------------------

.PHONY: install
install: all
	install -D -m 644 $(MODULE_DIR)/dm_remap.ko $(DESTDIR)/lib/modules/$(KVER)/updates/dm_remap.ko
	$(if $(DESTDIR),,depmod $(KVER))
	cmake --install $(CMAKE_DIR) --prefix $(PREFIX)

.PHONY: deps clean
deps:
	scripts/deps.sh build test vm fuzz

clean:
	rm -rf build

# --- tests ----------------------------------------------------------------------------------------

.PHONY: test test-unit test-32bit test-sim sim sim-mutants test-fuzz fuzz test-cli coverage test-vm test-debug \
	test-kcsan kill-storm check-style demo
test:
	+scripts/test.sh

test-unit: unit-programs
	scripts/test-ctest.sh unit

test-32bit:
	+scripts/test-32bit.sh

test-sim: sim-programs
	scripts/test-ctest.sh sim

sim: sim-programs
	$(CMAKE_DIR)/tests/sim/sim --seeds $(SEEDS) --cuts $(CUTS)

sim-mutants: $(CMAKE_DIR)/build.ninja
	$(cmake_build) sim-parts unit-parts $(quietly)
	tests/sim/mutants.sh --seeds $(MUTANT_SEEDS) $(MUTANTS)

test-fuzz: fuzz-programs
	scripts/test-fuzz.sh

fuzz: fuzz-programs
	scripts/test-fuzz.sh $(MINUTES)

test-cli: cli-programs
	scripts/test-ctest.sh cli

coverage: coverage-programs
	scripts/coverage.sh

# Kernels of our own are built when somebody wants to use them.
own_kernels := um-kernel debug-kernel kcsan-kernel
.PHONY: $(own_kernels)
$(own_kernels):
	scripts/build-kernel.sh build $(@:-kernel=)

test-vm: $(filter $(own_kernels),$(KERNEL)-kernel)
	+tests/vm/run.sh --kernel '$(KERNEL)' --case '$(CASE)' --jobs '$(JOBS)'

test-debug: debug-kernel
	scripts/deps.sh build test vm
	+scripts/test-debug.sh

# Left out is what keeps one processor busy for long, and nobody comes in between.
test-kcsan: kcsan-kernel
	scripts/deps.sh build test vm
	+tests/vm/run.sh --kernel kcsan --case '$(if $(filter-out *,$(CASE)),$(CASE),*-EachBlock*:HostileSpares*:Reboot*)'

kill-storm: $(filter $(own_kernels),$(KERNEL)-kernel)
	+tests/vm/kill-storm.sh --kernel '$(KERNEL)' --runs '$(RUNS)'

bench:
	scripts/deps.sh build test vm bench
	+tests/bench/run.sh

check-style:
	scripts/check-style.sh

demo:
	@+scripts/demo.sh
