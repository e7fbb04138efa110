#!/bin/sh
# Table 1, a cell a line: run a line, or all of it; cut it anywhere and run it again, it continues. `lawm-train grid`
# runs the same cells from one recipe, skipping what is done. On two cores: RECIPE=cpu RUNS=3 sh table1.sh
RECIPE=${RECIPE:-paper} RUNS=${RUNS:-5} LAWM_ROOT=${LAWM_ROOT:-lawm}
# dataset folders, or Hub ids such as ORG/lawm-walker@v1; redrawn labels and oracles need their withheld actions
CHEETAH=${CHEETAH:-$LAWM_ROOT/dataset/cheetah-run}
HOPPER=${HOPPER:-$LAWM_ROOT/dataset/hopper-stand}
WALKER=${WALKER:-$LAWM_ROOT/dataset/walker-walk}
export LAWM_ROOT

lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$CHEETAH" --slice expert --method td3bc --oracle
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$CHEETAH" --slice expert --method clap --oracle
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$CHEETAH" --slice expert --method td3bc --label-seed own
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$CHEETAH" --slice expert --method clap --label-seed own
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$CHEETAH" --slice expert --method idm-td3bc --label-seed own
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$CHEETAH" --slice expert --method lawm --label-seed own
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$CHEETAH" --slice medium --method td3bc --oracle
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$CHEETAH" --slice medium --method clap --oracle
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$CHEETAH" --slice medium --method td3bc --label-seed own
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$CHEETAH" --slice medium --method clap --label-seed own
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$CHEETAH" --slice medium --method idm-td3bc --label-seed own
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$CHEETAH" --slice medium --method lawm --label-seed own
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$CHEETAH" --slice medium-replay --method td3bc --oracle
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$CHEETAH" --slice medium-replay --method clap --oracle
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$CHEETAH" --slice medium-replay --method td3bc --label-seed own
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$CHEETAH" --slice medium-replay --method clap --label-seed own
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$CHEETAH" --slice medium-replay --method idm-td3bc --label-seed own
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$CHEETAH" --slice medium-replay --method lawm --label-seed own
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$CHEETAH" --slice plan2explore --method td3bc --oracle
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$CHEETAH" --slice plan2explore --method clap --oracle
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$CHEETAH" --slice plan2explore --method td3bc --label-seed own
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$CHEETAH" --slice plan2explore --method clap --label-seed own
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$CHEETAH" --slice plan2explore --method idm-td3bc --label-seed own
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$CHEETAH" --slice plan2explore --method lawm --label-seed own
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$HOPPER" --slice expert --method td3bc --oracle
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$HOPPER" --slice expert --method clap --oracle
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$HOPPER" --slice expert --method td3bc --label-seed own
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$HOPPER" --slice expert --method clap --label-seed own
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$HOPPER" --slice expert --method idm-td3bc --label-seed own
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$HOPPER" --slice expert --method lawm --label-seed own
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$HOPPER" --slice medium --method td3bc --oracle
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$HOPPER" --slice medium --method clap --oracle
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$HOPPER" --slice medium --method td3bc --label-seed own
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$HOPPER" --slice medium --method clap --label-seed own
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$HOPPER" --slice medium --method idm-td3bc --label-seed own
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$HOPPER" --slice medium --method lawm --label-seed own
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$HOPPER" --slice medium-replay --method td3bc --oracle
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$HOPPER" --slice medium-replay --method clap --oracle
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$HOPPER" --slice medium-replay --method td3bc --label-seed own
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$HOPPER" --slice medium-replay --method clap --label-seed own
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$HOPPER" --slice medium-replay --method idm-td3bc --label-seed own
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$HOPPER" --slice medium-replay --method lawm --label-seed own
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$HOPPER" --slice plan2explore --method td3bc --oracle
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$HOPPER" --slice plan2explore --method clap --oracle
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$HOPPER" --slice plan2explore --method td3bc --label-seed own
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$HOPPER" --slice plan2explore --method clap --label-seed own
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$HOPPER" --slice plan2explore --method idm-td3bc --label-seed own
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$HOPPER" --slice plan2explore --method lawm --label-seed own
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$WALKER" --slice expert --method td3bc --oracle
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$WALKER" --slice expert --method clap --oracle
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$WALKER" --slice expert --method td3bc --label-seed own
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$WALKER" --slice expert --method clap --label-seed own
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$WALKER" --slice expert --method idm-td3bc --label-seed own
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$WALKER" --slice expert --method lawm --label-seed own
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$WALKER" --slice medium --method td3bc --oracle
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$WALKER" --slice medium --method clap --oracle
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$WALKER" --slice medium --method td3bc --label-seed own
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$WALKER" --slice medium --method clap --label-seed own
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$WALKER" --slice medium --method idm-td3bc --label-seed own
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$WALKER" --slice medium --method lawm --label-seed own
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$WALKER" --slice medium-replay --method td3bc --oracle
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$WALKER" --slice medium-replay --method clap --oracle
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$WALKER" --slice medium-replay --method td3bc --label-seed own
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$WALKER" --slice medium-replay --method clap --label-seed own
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$WALKER" --slice medium-replay --method idm-td3bc --label-seed own
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$WALKER" --slice medium-replay --method lawm --label-seed own
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$WALKER" --slice plan2explore --method td3bc --oracle
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$WALKER" --slice plan2explore --method clap --oracle
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$WALKER" --slice plan2explore --method td3bc --label-seed own
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$WALKER" --slice plan2explore --method clap --label-seed own
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$WALKER" --slice plan2explore --method idm-td3bc --label-seed own
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$WALKER" --slice plan2explore --method lawm --label-seed own

# controls on one slice: all actions, no reinforcement learning, C-LAP relabeled by an IDM, C-LAP with LAWM's prior
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$WALKER" --slice medium-replay --method lawm --oracle
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$WALKER" --slice medium-replay --method bc --label-seed own
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$WALKER" --slice medium-replay --method idm-clap --label-seed own
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$WALKER" --slice medium-replay --method clap --label-seed own --set model.prior=standard --name walker-walk-medium-replay-clap-standard

# the fraction of labels; 5% stands above, 100% are the oracles
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$WALKER" --slice medium-replay --method lawm --label-seed own --label-frac 0.01 --name walker-walk-medium-replay-lawm-frac0.01
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$WALKER" --slice medium-replay --method clap --label-seed own --label-frac 0.01 --name walker-walk-medium-replay-clap-frac0.01
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$WALKER" --slice medium-replay --method lawm --label-seed own --label-frac 0.2 --name walker-walk-medium-replay-lawm-frac0.2
lawm-train --recipe "$RECIPE" --seeds "$RUNS" --hub-dataset "$WALKER" --slice medium-replay --method clap --label-seed own --label-frac 0.2 --name walker-walk-medium-replay-clap-frac0.2

# scores over 100 episodes, then the tables
lawm-train evaluate "$LAWM_ROOT"/runs/cheetah-run-* "$LAWM_ROOT"/runs/hopper-stand-* "$LAWM_ROOT"/runs/walker-walk-*
lawm-train report "$LAWM_ROOT"/runs/*
