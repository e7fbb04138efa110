"""Runs become a table, a CSV that gives the same table back, and a picture."""

import json

import pytest

from lawm_data.errors import UserError
from lawm_data.runs import Run
from lawm_train import report


def make_run(path, method, seed, means, prior=None):
    run = Run(path)
    run.begin({"method": method, "env": "walker-walk", "slice": "expert", "seed": seed, "labeled": 5})
    if prior is not None:
        run.log({"kind": "evaluate", "phase": "model", "update": 9, "returns": [prior]})
    for update, mean in enumerate(means, 1):
        run.log({"kind": "train", "phase": "agent", "update": update, "loss": 1.0})
        run.log({"kind": "evaluate", "phase": "agent", "update": update, "returns": [mean - 1, mean + 1]})
    return path


@pytest.fixture
def runs(tmp_path):
    return [
        make_run(tmp_path / "a", "lawm", 0, [100, 300, 200], prior=50),
        make_run(tmp_path / "b", "lawm", 1, [200, 400, 400], prior=70),
        make_run(tmp_path / "c", "bc", 0, [90]),
    ]


def test_the_table_takes_last_checkpoints_and_marks_what_was_lost_since_the_best(runs):
    lines = report.table(report.points(runs)).splitlines()
    assert "| lawm | 5 | 2 | 300.0 ± 141.4 | 30.0 | 0.86 | 200, 400 |" in "".join(lines)
    assert "| lawm prior-policy | 5 | 2 | 60.0 ± 14.1 | 6.0 | 1.00 | 50, 70 |" in "".join(lines)
    assert "| bc | 5 | 1 | 90.0 | 9.0 | 1.00 | 90 |" in "".join(lines)


def test_the_csv_gives_the_same_table_back(runs, tmp_path):
    text = report.write(runs, tmp_path / "out")
    again = report.from_csv(tmp_path / "out" / "scores.csv")
    assert report.table(again) == text
    assert (tmp_path / "out" / "curves.png").read_bytes()[:4] == b"\x89PNG"


def test_what_a_resume_did_again_counts_once(runs, tmp_path):
    Run(runs[2]).log({"kind": "evaluate", "phase": "agent", "update": 1, "returns": [10.0]})
    (point,) = report.points(runs[2:])
    assert point.mean == 10


def test_a_cut_last_line_is_skipped(runs):
    path = runs[2] / "metrics.jsonl"
    path.write_text(path.read_text() + json.dumps({"kind": "evaluate"})[:9])
    assert len(report.points(runs[2:])) == 1


def test_runs_without_an_evaluation_are_one_line(tmp_path):
    path = make_run(tmp_path / "run", "lawm", 0, [])
    with pytest.raises(UserError, match="nothing was evaluated yet"):
        report.write([path], tmp_path / "out")
