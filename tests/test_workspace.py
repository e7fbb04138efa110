"""A workspace that collectors and trainings share: no command takes the one's files for the other's."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from test_collect_learning import ENV, made
from test_report import make_run

import lawm_train.cli
from lawm_data.collect import collect
from lawm_data.errors import UserError
from lawm_data.runs import trained
from lawm_train.policy import Policy

COLLECTOR = f"collect-{ENV}-dreamer-s0"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`runs/` after a collection and the training of one run."""
    root = tmp_path_factory.mktemp("workspace")
    collect(root, ENV, made(episodes=4))
    make_run(root / "runs" / "trained", "lawm", 0, [100])
    return root / "runs"


def asked(*words: str) -> tuple[int, str, str]:
    answer = CliRunner().invoke(lawm_train.cli.main, words)
    return answer.exit_code, answer.stdout, answer.stderr


def test_a_report_on_everything_below_runs_leaves_the_collectors_out(runs: Path) -> None:
    code, said, left_out = asked("report", *map(str, sorted(runs.iterdir())))
    assert code == 0 and "| trained | LAWM |" in said
    assert left_out == f"left out, collectors have no score: {COLLECTOR}\n"


@pytest.mark.parametrize("command", ["evaluate RUN", "diagnose RUN --hub-dataset data", "push RUN"])
def test_a_collector_s_run_is_no_trained_one_to_any_command(
    runs: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lawm_train.stream.open_dataset", lambda where: None)
    code, _, said = asked(*(str(runs / COLLECTOR) if word == "RUN" else word for word in command.split()))
    assert code == 2 and said.count("\n") == 1 and f"{COLLECTOR}: the run of a collector" in said


def test_what_is_asked_of_everything_below_runs_leaves_the_collectors_out(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lawm_train.scoring.score", lambda run, *_: f"{trained(run).name}: return 3")
    code, said, left_out = asked("evaluate", *map(str, sorted(runs.iterdir())))
    assert (code, said, left_out) == (0, "trained: return 3\n", f"left out, collectors have no score: {COLLECTOR}\n")
    code, said, left_out = asked("evaluate", str(runs), str(runs / "trained"))
    assert (code, said, left_out) == (0, "trained: return 3\n", "left out, no run is there: runs\n")
    assert asked("evaluate", str(runs / "trainde"), str(runs / "trained"))[0] == 2, "a slip of the pen is told"


@pytest.mark.parametrize("error", [MemoryError("no room"), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_too_little_memory_is_one_line(runs: Path, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def score(*_: object) -> None:
        raise error

    monkeypatch.setattr("lawm_train.scoring.score", score)
    code, _, said = asked("evaluate", str(runs / "trained"))
    assert code == 2 and said.startswith(f"error: not enough memory ({error}); free some, or train with")
    monkeypatch.setattr("lawm_train.scoring.score", lambda *_: [].pop())
    with pytest.raises(IndexError):  # a bug keeps its traceback
        CliRunner().invoke(lawm_train.cli.main, ["evaluate", str(runs / "trained")], catch_exceptions=False)


def test_a_collector_is_no_policy_of_a_trained_run(runs: Path) -> None:
    with pytest.raises(UserError, match="the run of a collector"):
        Policy.from_pretrained(runs / COLLECTOR)
