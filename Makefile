# netloom. `make` alone lists what there is; the work is done by scripts/.

# Where rustup puts cargo, for a shell that does not know it yet.
export PATH := $(PATH):$(HOME)/.cargo/bin

.DEFAULT_GOAL := help
.PHONY: help deps services images guest build install uninstall demo demo-vm demo-down cluster-demo cluster-demo-down test bench fuzz lint docs clean clean-images

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## Install, start and build what is missing, then run a routed lab (asks for sudo where root is needed)
	@scripts/demo.sh up

demo-vm: ## The same with virtual machines: builds a guest, pushes it, deploys two of it with two containers, pulls a cable
	@scripts/demo-vm.sh

demo-down: ## Remove the demos' labs, their netloomd and all their data
	@scripts/demo.sh down

cluster-demo: ## Two controllers and a lab on two hosts: the one that leads is killed, a host is cut off and comes back; removes all of it again (KEEP=1 leaves it running)
	@KEEP=$(KEEP) scripts/cluster-demo.sh up

cluster-demo-down: ## Remove what a cluster-demo left
	@scripts/cluster-demo.sh down

deps: ## Install the packages that are missing
	@scripts/deps.sh

services: deps ## Start Docker Engine, Open vSwitch and libvirt where they do not run
	@scripts/services.sh

images: services ## Build netloom/frr, netloom/host and netloom/test from Debian packages
	@scripts/images.sh

guest: deps ## Build the disk of a small virtual machine from Debian packages: target/guest/guest.qcow2
	@scripts/guest.sh

build: deps ## Build the programs into target/debug
	@cargo build --workspace --bins --locked

# What PREFIX, DESTDIR, SYSTEMDUNITDIR, PROGRAMS, PROFILE, BUILT and PURGE do stands in scripts/install.sh.
export PREFIX DESTDIR SYSTEMDUNITDIR PROGRAMS PROFILE BUILT PURGE
# A package is built where packages are not ours to install, and what was built before needs no compiler.
install: $(if $(DESTDIR)$(BUILT),,deps) ## Build and install netloom, and start it as a service (PREFIX=/usr/local, DESTDIR=)
	@scripts/install.sh install

uninstall: ## Remove what was installed; PURGE=1 also removes labs, data and configuration
	@scripts/install.sh uninstall

test: images ## Run every test, unit to end-to-end
	@scripts/test.sh

bench: images ## Measure ratios against floors (release build: the first takes long)
	@cargo build --workspace --bins --release --locked
	@cargo bench --workspace --bench netloom --locked

fuzz: ## Look for topology files and images that their readers cannot cope with (needs nightly Rust and cargo-fuzz)
	@scripts/fuzz.sh

lint: ## Check formatting, clippy, rustdoc, contracts and licences
	@scripts/lint.sh

docs: ## Write the pages of docs/cli anew, from the commands' definition
	@cargo run --quiet --locked -p netloom-cli -- man --markdown docs/cli

clean: ## Remove what was built and fetched here
	cargo clean
	rm -rf .tools

clean-images: ## Remove the images
	@scripts/images.sh --remove
