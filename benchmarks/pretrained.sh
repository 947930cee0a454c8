#!/usr/bin/env bash
# Heads on features of EfficientNet-Lite0 (ImageNet), and three arms fine-tuned: runs for tables of benchmarks/results.
# The features of CIFAR-10 take 13 minutes on one CPU core, once; the rest takes hours. A run that was stopped goes on
# where it was.
#
#   benchmarks/pretrained.sh CIFAR10 TINY_IMAGENET WEIGHTS OUT
#   for name in cifar10_if100 cifar10 tiny_imagenet_lt; do
#     python benchmarks/table.py OUT/$name benchmarks/results/$(date +%F)_choose_${name}_lite0_cpu.md
#   done
#
# CIFAR10 and TINY_IMAGENET are image folders; WEIGHTS is a safetensors file of timm's tf_efficientnet_lite0. The classes
# of Tiny ImageNet are among those that the network was trained on.
set -euo pipefail
cifar10=$1 tiny_imagenet=$2 weights=$3 out=$4
here=$(dirname "$0")
model=(--model timm:tf_efficientnet_lite0 --weights "$weights")
choose() { nc-tools choose "$@" "${model[@]}" --image-size 128 --cache "$out/features" --seeds 0-4; }

python "$here/pretrained_lists.py" "$cifar10" "$tiny_imagenet" "$out"
choose "imagefolder:$cifar10" --imbalance 100 --out "$out/cifar10_if100"
choose "imagefolder:$cifar10" --epochs 10 --out "$out/cifar10" \
  --arms linear,cosine,etf,etf_dr,nearest_etf,simplex,random,class_means,linear_tau,least_squares_start,linear_smoothing
choose "table:$out/tiny_imagenet_lt.csv@$tiny_imagenet" --epochs 12 \
  --arms linear_la,linear,linear_balanced_softmax,cosine_la,etf_la,etf_dr,random_la,class_means --out "$out/tiny_imagenet_lt"
python "$here/../recipes/long_tail.py" --data "table:$out/cifar10_small.csv@$cifar10" "${model[@]}" --train all \
  --image-size 64 --arms linear,cosine_la,etf_la --epochs 4 --seeds 0-2 --set "protocol.rates=(1e-4,3e-4,1e-3)" \
  --set protocol.max_extensions=0 --out "$out/fine_tuning"
