#!/bin/sh
# Fuzzes one target for some seconds:  fuzz/run.sh TARGET SECONDS [libFuzzer options]
#
# Needs no nightly toolchain: the coverage instrumentation that libFuzzer steers by is a pass of LLVM, which the stable
# compiler has too. Memory errors are not looked for (the code forbids `unsafe`), panics and wrong results are.
# A finding is left in fuzz/artifacts/TARGET/ and makes this fail; the corpus grows in fuzz/corpus/TARGET/.
set -eu

target=${1:?usage: fuzz/run.sh TARGET SECONDS [libFuzzer options]}
seconds=${2:?usage: fuzz/run.sh TARGET SECONDS [libFuzzer options]}
shift 2
cd "$(dirname "$0")"

export CARGO_TARGET_DIR="${FUZZ_TARGET_DIR:-target}"
# Only with --target do the flags spare build scripts and macros, which have no libFuzzer to link with.
host=$(rustc -vV | sed -n 's/^host: //p')
RUSTFLAGS="-Cpasses=sancov-module -Ccodegen-units=1 \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares" \
    cargo build --release --target "$host" --bin "$target"

mkdir -p "corpus/$target" "artifacts/$target"
seeds=""
[ -d "seeds/$target" ] && seeds="seeds/$target"
# shellcheck disable=SC2086 # without seeds there is no argument
exec "$CARGO_TARGET_DIR/$host/release/$target" -max_total_time="$seconds" -max_len=4096 -timeout=10 \
    -artifact_prefix="artifacts/$target/" "$@" "corpus/$target" $seeds
