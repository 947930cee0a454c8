#!/usr/bin/env bash
# Run all benchmarks that need a GPU, in one command:
#
#   benchmarks/gpu.sh OUT MINUTES [STAGE ...]
#
# OUT is the folder for the results, one file for each stage. MINUTES limits the whole time, rehearsal included. First
# every command runs once at a tiny size, so that no stage fails after the others have used up the time; with 0 MINUTES
# nothing else runs. Then the stages run, the most important first, each within the time that is left: a stage that is
# stopped leaves what it has printed, and `table` goes on where it stopped when the command is given again. Stages:
# tests step heads losses measures evaluation data table (all of them without a name).
#
# Set by the environment:
#   DATA     image folder with train/ and test/, such as CIFAR-10, for `data` and `table` (default: digits, random pixels)
#   DEVICE   cuda, or cpu to rehearse (default: cuda)
#   PEER     folder that holds the package neural_collapse, with which `measures` compares
#   EPOCHS, WORKERS   of `table` (default: 200 epochs, 6 processes)
#   PYTHON   interpreter (default: python3); it needs torch, torchvision and pytest. MLflow is not needed: the runs stay
#            in OUT/table, and `nc-tools sync OUT/table` sends them later from another machine.
set -uo pipefail
if [[ $# -lt 2 || ! $2 =~ ^[0-9]+$ ]]; then
  echo "usage: benchmarks/gpu.sh OUT MINUTES [STAGE ...], with whole MINUTES, 0 for the rehearsal alone; got: $*" >&2
  exit 2
fi
out=$1
minutes=$2
shift 2
for folder in ${DATA:+"$DATA"} ${PEER:+"$PEER"}; do
  if [[ ! -d $folder ]]; then
    echo "there is no folder $folder: check DATA and PEER" >&2
    exit 2
  fi
done
stages=("$@")
[[ ${#stages[@]} -gt 0 ]] || stages=(tests step heads losses measures evaluation data table)
device=${DEVICE:-cuda}
python=${PYTHON:-python3}
ends=$((SECONDS + minutes * 60))
mkdir -p "$out"
out=$(cd "$out" && pwd)
data=${DATA:+imagefolder:$(cd "$DATA" && pwd)}
peer=${PEER:+$(cd "$PEER" && pwd)}
cd "$(dirname "$0")/.."
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} MLFLOW_DISABLE_TELEMETRY=true

# The command of a stage; with "tiny", the same command on as little as it takes.
command_of() {
  local tiny=${2:-}
  case $1 in
    tests)
      command=($python -m pytest -q -m gpu -p no:cacheprovider -p no:benchmark tests)
      [[ -z $tiny ]] || command+=(--collect-only) ;;
    step)
      command=($python benchmarks/step.py --device "$device" --json "$out/step.json")
      if [[ -n $tiny ]]; then command+=(--model conv --batch 16 --images 64 --steps 2 --turns 1)
      else command+=(--compile --steps 400 --turns 3); fi ;;
    heads)
      command=($python benchmarks/heads.py --device "$device" --json "$out/heads.json")
      [[ -z $tiny ]] || command+=(--quick --turns 1 --size 32 64 10) ;;
    losses)
      command=($python benchmarks/losses.py --device "$device" --json "$out/losses.json")
      [[ -z $tiny ]] || command+=(--turns 1 --repeats 1 --threads 1 --size 32 16 10 --pairs 32 16) ;;
    measures)
      command=($python benchmarks/measures.py --device "$device" --out "$out/measures_figures.json")
      [[ -z $peer ]] || command+=(--peer "$peer")
      [[ -z $tiny ]] || command+=(--sizes 32x4 --streams 32x64 --repeats 1) ;;
    evaluation)
      command=($python benchmarks/evaluation.py --device "$device")
      [[ -z $tiny ]] || command+=(--train 200 --test 100 --outliers 100 --feature-dim 16 --classes 4) ;;
    data)
      command=($python benchmarks/data.py --device "$device" --cache "$out/cache")
      if [[ -n $tiny ]]; then command+=(--batch-size 16 --limit 64 --turns 1 --side 256)
      elif [[ -n $data ]]; then command+=(--data "$data"); fi ;;
    table)
      command=($python recipes/long_tail.py --device "$device" --tracking-uri none --resume)
      if [[ -n $tiny ]]; then command+=(--smoke --workers 1 --arms linear,etf --out "$out/rehearsal/table"
        --set training.compile=false --set optim.decay_norm_and_bias=true --set training.batch_size=128)
      else
        command+=(--workers "${WORKERS:-6}" --epochs "${EPOCHS:-200}" --seeds 0-2 --out "$out/table")
        [[ -z $data ]] || command+=(--data "$data" --imbalance 100 --set data.protocol=ldam --model resnet32
          --set training.compile=true --set optim.weight_decay=2e-4 --set optim.decay_norm_and_bias=true
          --set training.batch_size=128)
      fi ;;
    *)
      echo "there is no stage $1: choose from tests step heads losses measures evaluation data table" >&2
      exit 2 ;;
  esac
}

for stage in "${stages[@]}"; do command_of "$stage" tiny; done

echo "== rehearsal: every command at a tiny size, on $device"
mkdir -p "$out/rehearsal"
failed=()
for stage in "${stages[@]}"; do
  command_of "$stage" tiny
  since=$SECONDS
  if "${command[@]}" > "$out/rehearsal/$stage.txt" 2>&1; then
    echo "$stage: works ($((SECONDS - since)) s)"
  else
    failed+=("$stage")
    echo "$stage: FAILED, and is left out: $(tail -n 1 "$out/rehearsal/$stage.txt")"
  fi
done

for stage in "${stages[@]}"; do
  [[ " ${failed[*]-} " != *" $stage "* ]] || continue
  left=$((ends - SECONDS))
  if ((left <= 5)); then
    ((minutes == 0)) || echo "== $stage: not run, no time is left"
    continue
  fi
  command_of "$stage"
  echo "== $stage, at most $left s: ${command[*]}"
  timeout --signal=TERM --kill-after=20 "$left" "${command[@]}" 2>&1 | tee "$out/$stage.txt" | tail -n 40
  status=${PIPESTATUS[0]}
  if ((status == 124 || status == 130 || status == 137)); then echo "$stage: cut when the time was up"
  elif ((status != 0)); then failed+=("$stage"); echo "$stage: ended with status $status"; fi
done
[[ ! -d $out/table ]] || $python -m nc_tools.cli compare "$out/table" | tee "$out/table.txt"
if [[ ${#failed[@]} -gt 0 ]]; then echo "failed: ${failed[*]}"; exit 1; fi
