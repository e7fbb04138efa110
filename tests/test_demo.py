"""`make demo` keeps its promise: LAWM above the mean of the data and above both methods with labels alone."""

import subprocess
import sys
from pathlib import Path

import pytest

from lawm_data.manifest import Manifest
from lawm_train import evidence

DEMO = Path(__file__).parent.parent / "recipes" / "demo" / "demo.py"


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_lawm_is_above_the_data_and_above_both_methods_without_the_unlabeled_episodes(seed, tmp_path):
    subprocess.run([sys.executable, str(DEMO), "--folder", str(tmp_path), "--seed", str(seed)], check=True)
    found = evidence.from_csv(tmp_path / "report" / "scores.csv")
    last = {record.method: record.last.mean for record in found}
    mean = Manifest.load(tmp_path / "dataset" / "cheetah-run").slices["medium-replay"].statistics["mean"]
    assert last["lawm"] > max(mean, last["clap"], last["bc"]), (last, mean)
