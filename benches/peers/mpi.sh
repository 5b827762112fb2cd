#!/usr/bin/env bash
# Training on several processes beside one: speed, memory, and what happens when something breaks.
#
#   benches/peers/mpi.sh ANDIRON WORK [PAIRS]
#
# ANDIRON is a program built with the feature `mpi`. WORK is
#   speed     two processes of one thread beside one of two threads: tokens/s of GPT 6 × 384, steps of 64 × 256 tokens
#   network   the same, the processes in two network namespaces that a link of 1 Gbit/s connects (as root)
#   memory    peak resident memory of one process and of each of four, with and without `optimizer.shard`
#   kill      `kill -9` of each process of two, 20 times; the run must end with the bytes of one that is left alone
#   cut       the link is down for less, and for more, than the watchdog waits (as root)
set -euo pipefail

andiron="$(realpath "$1")"
work="$2"
pairs="${3:-5}"
root="$(cd "$(dirname "$0")/../.." && pwd)"
place="$(mktemp -d)"
cd "$place"
finish() {
  ip netns del andiron1 2>/dev/null || true
  ip netns del andiron2 2>/dev/null || true
  rm -rf "$place"
}
trap finish EXIT

export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
# More processes than processors are allowed; they yield while they wait.
more=(--oversubscribe --bind-to none --mca mpi_yield_when_idle 1)

"$andiron" prepare "$root/examples/data/shakespeare.txt" --kind char --output data >/dev/null 2>&1

# config OUTPUT STEPS WIDTH LAYERS ROWS ACCUMULATE CONTEXT
config() {
  cat >"$1.toml" <<TOML
[run]
output = "$1"
seed = 1
steps = $2
accumulate = $6

[model]
model_type = "gpt2"
vocab_size = 70
n_positions = $7
n_embd = $3
n_layer = $4
n_head = $(($3 / 64 > 0 ? $3 / 64 : 2))
attn_pdrop = 0.0
resid_pdrop = 0.0
embd_pdrop = 0.0

[data]
train = "data/train"
rows = $5
context = $7
order = "epochs"

[optimizer]
schedule = "constant"
lr = 1e-3
weight_decay = 0.1

[checkpoint]
every = ${8:-1000000}
TOML
}

# The median of the speeds of all steps but the first two.
speed() {
  python3 - "$1/metrics.jsonl" <<'PYTHON'
import json, statistics, sys
print(round(statistics.median(json.loads(line)["tokens_per_s"] for line in list(open(sys.argv[1]))[2:])))
PYTHON
}

# Two namespaces, `andiron1` and `andiron2`, as two machines with a link of 1 Gbit/s; the command that starts a process in one.
two_hosts() {
  local n
  ip link add va type veth peer name vb
  for n in 1 2; do
    ip netns add "andiron$n"
    ip -n "andiron$n" link set lo up
  done
  ip link set va netns andiron1
  ip link set vb netns andiron2
  ip -n andiron1 addr add 10.77.0.1/24 dev va
  ip -n andiron2 addr add 10.77.0.2/24 dev vb
  ip -n andiron1 link set va up
  ip -n andiron2 link set vb up
  ip netns exec andiron1 tc qdisc add dev va root tbf rate 1gbit burst 256kb latency 50ms
  ip netns exec andiron2 tc qdisc add dev vb root tbf rate 1gbit burst 256kb latency 50ms
  mkdir -p hosts
  printf '10.77.0.1 andiron1\n10.77.0.2 andiron2\n127.0.0.1 localhost\n' >hosts/hosts
  # A host has its own name and its own table of names.
  cat >hosts/agent <<AGENT
#!/bin/bash
host="\$1"; shift
exec ip netns exec "\$host" unshare --uts --mount bash -c 'hostname "\$0"; mount --bind $place/hosts/hosts /etc/hosts; eval "\$@"' "\$host" "\$*"
AGENT
  chmod +x hosts/agent
}

# on_two_hosts ARGUMENTS…: `mpirun` of two processes, one on each.
on_two_hosts() {
  hosts/agent andiron1 "cd $place && mpirun -n 2 -H andiron1:1,andiron2:1 --mca plm_rsh_agent $place/hosts/agent \
    --mca btl tcp,self --mca btl_tcp_if_include 10.77.0.0/24 --mca oob_tcp_if_include 10.77.0.0/24 \
    --mca odls_base_sigkill_timeout 60 --bind-to none --mca mpi_yield_when_idle 1 \
    -x OMPI_ALLOW_RUN_AS_ROOT -x OMPI_ALLOW_RUN_AS_ROOT_CONFIRM $*"
}

# beside ONE TWO: runs two functions in turn, which leave a run of their name, and prints their speeds.
beside() {
  local pair one two
  for pair in $(seq "$pairs"); do
    rm -rf one two
    "$1" >/dev/null 2>&1
    "$2" >/dev/null 2>&1
    one="$(speed one)" two="$(speed two)"
    python3 -c "print(f'pair $pair: one process {$one} tokens/s, two {$two}: {$two / $one:.2f}')"
  done
}

train_one() { "$andiron" pretrain one.toml --threads 2; }
train_two() { mpirun -n 2 --bind-to core "$andiron" pretrain two.toml --threads 1; }
train_far() { on_two_hosts "$andiron" pretrain two.toml --threads 1; }

# The processes that train here.
trainers() {
  local process
  for process in $(pgrep -x andiron); do
    [ "$(readlink "/proc/$process/cwd")" != "$place" ] || echo "$process"
  done
}

# Peak resident memory, in MB, of the processes that a command starts: of `andiron` alone.
peak() {
  "$@" >/dev/null 2>&1 &
  local job=$! most=0 now
  while kill -0 "$job" 2>/dev/null; do
    now="$(for process in $(trainers); do awk '/VmHWM/ { print int($2 / 1024) }' "/proc/$process/status"; done 2>/dev/null | sort -n | tail -1)"
    [ "${now:-0}" -gt "$most" ] && most="$now"
    sleep 0.2
  done
  wait "$job"
  echo "$most"
}

# How far a run is.
steps() { { wc -l <"$1/metrics.jsonl"; } 2>/dev/null || echo 0; }

# The processes of a job whose launcher has this number.
ranks() { pgrep -P "$1" -x andiron | sort -n; }

case "$work" in
speed)
  config one 8 384 6 8 8 256
  config two 8 384 6 8 8 256
  beside train_one train_two
  ;;
network)
  two_hosts
  config one 8 384 6 8 8 256
  config two 8 384 6 8 8 256
  beside train_one train_far
  ;;
memory)
  for rows in 8 64; do
    config one 3 384 6 $rows 1 256
    alone="$(peak "$andiron" pretrain one.toml --threads 1)"
    echo "$rows rows of 256: one process $alone MB"
    for shard in false true; do
      rm -rf one
      most="$(peak mpirun -n 4 "${more[@]}" "$andiron" pretrain one.toml --threads 1 --set optimizer.shard=$shard)"
      python3 -c "print(f'  each of four, shard = $shard: $most MB, {$most / $alone:.2f}')"
    done
    rm -rf one
  done
  ;;
kill)
  config whole 1000 32 2 4 2 32 20
  config broken 1000 32 2 4 2 32 20
  job=(mpirun -n 2 "${more[@]}" "$andiron" pretrain)
  "${job[@]}" whole.toml --threads 1 >/dev/null 2>&1
  for number in $(seq 20); do
    "${job[@]}" broken.toml --threads 1 >/dev/null 2>&1 &
    launcher=$!
    while [ "$(steps broken)" -lt $((number * 45)) ]; do sleep 0.02; done
    victim="$(ranks "$launcher" | sed -n "$((number % 2 + 1))p")"
    began="$(date +%s%N)"
    kill -9 "$victim"
    status=0
    wait "$launcher" || status=$?
    echo "$number: process $((number % 2)) killed after step $(tail -1 broken/metrics.jsonl | sed 's/.*"step":\([0-9]*\).*/\1/'); the job" \
      "ended with $status after $((($(date +%s%N) - began) / 1000000)) ms"
  done
  "${job[@]}" broken.toml --threads 1 >/dev/null 2>&1
  for file in model/model.safetensors step-001000/optimizer.safetensors; do cmp "whole/$file" "broken/$file"; done
  strip() { sed -E 's/,"(tokens_per_s|elapsed_s)":[0-9.e-]+//g' "$1/metrics.jsonl"; }
  cmp <(strip whole) <(strip broken)
  echo "weights, moments and metrics are those of the run that was left alone"
  ;;
cut)
  two_hosts
  config whole 800 32 2 4 2 32 50
  config broken 800 32 2 4 2 32 50
  on_two_hosts "$andiron" pretrain whole.toml --threads 1 >/dev/null 2>&1
  # In a group of its own, to be ended as a whole.
  set -m
  on_two_hosts "$andiron" pretrain broken.toml --threads 1 --step-timeout 10 >said 2>&1 &
  job=$!
  set +m
  for seconds in 4 40; do
    until=$(($(steps broken) + 150))
    while [ "$(steps broken)" -lt "$until" ]; do sleep 0.01; done
    ip -n andiron1 link set va down
    began=$SECONDS before="$(steps broken)"
    sleep "$seconds"
    ip -n andiron1 link set va up
    if [ "$seconds" = 4 ]; then
      while [ "$(steps broken)" -le $((before + 1)) ]; do sleep 0.1; done
      echo "cut for $seconds s: the next step came after $((SECONDS - began)) s"
    else
      while [ -n "$(trainers)" ]; do sleep 0.5; done
      echo "cut for $seconds s: all processes had ended after $((SECONDS - began)) s: $(grep -h 'error: ' said | head -1)"
      # Open MPI 4.1's mpirun may stay, waiting for its other half.
      for second in $(seq 20); do kill -0 "$job" 2>/dev/null || break; sleep 1; done
      if kill -0 "$job" 2>/dev/null; then
        echo "  mpirun had not, 20 s later"
        kill -KILL -- "-$job"
      fi
      wait "$job" || true
    fi
  done
  on_two_hosts "$andiron" pretrain broken.toml --threads 1 >/dev/null 2>&1
  cmp whole/model/model.safetensors broken/model/model.safetensors
  echo "the weights are those of the run that was left alone"
  ;;
*)
  echo "there is no work $work" >&2
  exit 2
  ;;
esac
