# `just` lists these; https://just.systems is optional: each is one plain command.

default:
    @just --list

# What CI checks.
check: fmt-check lint test deny

# Start the server here, as the README does.
run *args='serve':
    cargo run --release -- {{ args }}

test *args:
    cargo test --workspace {{ args }}

lint:
    cargo clippy --workspace --all-targets -- -D warnings

fmt:
    cargo fmt --all

fmt-check:
    cargo fmt --all -- --check

# Licences, banned crates, sources (cargo install --locked cargo-deny).
deny:
    cargo deny check bans licenses sources

# Two builds, so that the server that is measured is the one that is shipped.
#
# Figures of the release build; `just bench --help`.
bench *args:
    cargo build --release -p stoa
    cargo run --quiet --release -p stoa-bench -- {{ args }}

# A mixed load, and whether memory, open files or errors grow.
soak seconds='300' *args:
    cargo build --release -p stoa
    cargo run --quiet --release -p stoa-bench -- --soak {{ seconds }} {{ args }}

# Nanoseconds of what is done for each request, and MB/s of the check of a zip.
micro *args:
    cargo bench -p stoa-module -p stoa-sumdb --bench micro -- {{ args }}

# Fuzz one of fuzz/fuzz_targets (cargo install --locked cargo-fuzz; a C++ compiler).
fuzz target seconds='600':
    cd fuzz && cargo run --quiet --no-default-features --example seeds
    cd fuzz && cargo fuzz run --sanitizer none {{ target }} -- \
        -max_total_time={{ seconds }} -max_len=4096 -timeout=25 \
        {{ if path_exists("fuzz/dictionaries/" + target + ".dict") == "true" { "-dict=dictionaries/" + target + ".dict" } else { "" } }}
