#!/bin/sh
# Table 1, a cell a command: cut it anywhere and run it again, it continues. `lawm-train grid paper` runs the first block
# from one recipe, skipping what is done; controls and fractions are here alone. On two cores: RECIPE=cpu RUNS=3 sh table1.sh
RECIPE=${RECIPE:-paper} RUNS=${RUNS:-5} LAWM_ROOT=${LAWM_ROOT:-lawm}
# dataset folders, or Hub ids such as ORG/lawm-walker@v1; redrawn labels and oracles need their withheld actions
CHEETAH=${CHEETAH:-$LAWM_ROOT/dataset/cheetah-run}
HOPPER=${HOPPER:-$LAWM_ROOT/dataset/hopper-stand}
WALKER=${WALKER:-$LAWM_ROOT/dataset/walker-walk}
export LAWM_ROOT
trap 'exit 130' INT
failed=0 # what fails stops no other cell, and is told by the exit status

cell() { # DATASET SLICE METHOD OPTION...
    dataset=$1 slice=$2 method=$3
    shift 3
    lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$dataset" --slice "$slice" --method "$method" "$@" ||
        failed=1
}

for dataset in "$CHEETAH" "$HOPPER" "$WALKER"; do
    for slice in expert medium medium-replay plan2explore; do
        for method in td3bc clap; do
            cell "$dataset" $slice $method --oracle
        done
        for method in td3bc clap idm-td3bc lawm; do
            cell "$dataset" $slice $method --label-seed own
        done
    done
done

# controls on one slice: all actions, no reinforcement learning, C-LAP relabeled by an IDM, C-LAP with LAWM's prior
cell "$WALKER" medium-replay lawm --oracle
cell "$WALKER" medium-replay bc --label-seed own
cell "$WALKER" medium-replay idm-clap --label-seed own
cell "$WALKER" medium-replay clap --label-seed own --set model.prior=standard --name walker-walk-medium-replay-clap-standard

# the fraction of labels; 5% stands above, 100% are the oracles
for fraction in 0.01 0.2; do
    for method in lawm clap; do
        cell "$WALKER" medium-replay $method --label-seed own --label-frac $fraction
    done
done

# scores over 100 episodes, of the prior-policies too, then the tables
lawm-train evaluate "$LAWM_ROOT"/runs/cheetah-run-* "$LAWM_ROOT"/runs/hopper-stand-* "$LAWM_ROOT"/runs/walker-walk-* || failed=1
lawm-train evaluate --policy prior "$LAWM_ROOT"/runs/*-clap* "$LAWM_ROOT"/runs/*-lawm* || failed=1
ladder() { # DATASET ENV
    lawm-train diagnose --hub-dataset "$1" "$LAWM_ROOT"/runs/"$2"-*clap* "$LAWM_ROOT"/runs/"$2"-*lawm* || failed=1
}
ladder "$CHEETAH" cheetah-run
ladder "$HOPPER" hopper-stand
ladder "$WALKER" walker-walk
lawm-train report "$LAWM_ROOT"/runs/* || failed=1
exit $failed
