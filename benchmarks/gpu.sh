#!/usr/bin/env bash
# Everything here that wants a GPU, in one command:
#
#   benchmarks/gpu.sh IMAGEFOLDER OUT [MINUTES]
#
# IMAGEFOLDER is CIFAR-10 as a folder with train/ and test/; OUT takes the figures; MINUTES (20) bound the comparison,
# which goes on with the same command where it stopped. Needs nc_tools on the path, pytest and hypothesis.
set -euo pipefail
images=${1:?folder with CIFAR-10 as train/ and test/}
out=${2:?folder for the figures}
minutes=${3:-20}
cd "$(dirname "$0")/.."
mkdir -p "$out"
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
python=${PYTHON:-python3}

echo "== tests that need a GPU"
$python -m pytest -q -m gpu -p no:cacheprovider tests 2>&1 | tee "$out/gpu_tests.txt" | tail -3

echo "== a step of dot regression against a linear head"
$python benchmarks/dot_regression.py --device cuda --steps 200 | tee "$out/gpu_dot_regression.txt"

echo "== batches: crop, flip, normalize"
$python benchmarks/data.py --device cuda --data "imagefolder:$images" --cache "$out/cache" | tee "$out/gpu_data.txt"

echo "== heads, losses, collapse measures, a whole evaluation"
$python benchmarks/heads.py --json "$out/gpu_heads.json" | tee "$out/gpu_heads.txt"
$python benchmarks/nearest_etf.py --device cuda | tee "$out/gpu_nearest_etf.txt"
$python benchmarks/losses.py --device cuda --json "$out/gpu_losses.json" | tee "$out/gpu_losses.txt"
$python benchmarks/evaluation.py --device cuda | tee "$out/gpu_evaluation.txt"

echo "== ResNet-32 on CIFAR-10 IF100, all arms, 3 seeds; the literature's optimizer, as many epochs as fit"
timeout --signal=TERM --kill-after=60 "${minutes}m" \
  $python recipes/long_tail.py --device cuda --data "imagefolder:$images" --imbalance 100 --set data.protocol=ldam \
  --model resnet32 --seeds 0-2 --epochs "${EPOCHS:-100}" --workers "${WORKERS:-6}" \
  --set training.batch_size=128 --set training.compile=true --set optim.weight_decay=2e-4 \
  --set optim.decay_norm_and_bias=true --out "$out/long_tail" --resume || echo "stopped after $minutes minutes"
$python -m nc_tools.cli compare "$out/long_tail" | tee "$out/gpu_long_tail.txt"
