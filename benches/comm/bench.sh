#!/usr/bin/env bash
# Sums over two ranks against plain MPI, and the IAD-I step of ResNet-18 on two ranks of one thread each against two ranks that
# do not talk: benches/comm/bench.sh FOLDER, on a machine that does nothing else. About 15 minutes on two cores.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=scripts/env.sh
. scripts/env.sh
[ $# = 1 ] || { echo "usage: benches/comm/bench.sh FOLDER" >&2; exit 2; }
folder=$1
mkdir -p "$folder"
program=target/release/iad-launch

$program bench comm --ranks 2 --device cpu --factor 4 --seconds 2 \
    --gradients configs/paper/runs/cifar10_resnet18_iad1.toml --gradients configs/wrn_cifar10.toml --json "$folder/comm.json"
for policy in sync local; do
    $program bench scaling benches/step/step.toml --epoch 60 --set batch.size=16 --set batch_norm.across_ranks=$policy \
        --ranks 2 --independent --steps 4 --rounds 3 --device cpu --json "$folder/scaling-$policy.json" \
        --figure "$folder/scaling-$policy.svg"
done
