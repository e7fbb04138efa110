"""The score of a checkpoint: over as many episodes as were ever asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from test_report import make_run, row

import lawm_train.cli
from lawm_data import files
from lawm_data.errors import UserError
from lawm_data.runs import TENSORS, Position, Run
from lawm_train import cells, results, scoring, tables


class Simulator:
    """Episode k returns k."""

    def __init__(self, env, repeat, models, episodes):
        self.episodes = episodes

    def returns(self, acting):
        return [[float(k) for k in range(self.episodes)]]


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "Evaluator", Simulator)
    monkeypatch.setattr(scoring.policy, "load", lambda run, position: None)
    monkeypatch.setattr(scoring.policy, "acting", lambda *_: None)
    made = Run(make_run(tmp_path / "a", "lawm", 0, [100], repeat=2))
    made.save(Position(0, 1), {"x": torch.zeros(1)}, {})
    return made


def test_a_score_over_more_episodes_of_the_same_checkpoint_stays(run):
    assert "over 8 episodes" in scoring.score(run.path, 8)
    kept = (run.path / "evaluation-agent.json").read_bytes()
    told = scoring.score(run.path, 5)
    assert "over 8 episodes" in told and "kept" in told and (run.path / "evaluation-agent.json").read_bytes() == kept
    score = results.Score.of(run.path, "agent")
    assert score is not None and (score.mean, score.std) == (3.5, pytest.approx(np.std(range(8))))
    assert "over 9 episodes" in scoring.score(run.path, 9) and scoring.is_scored(run, 9)


def test_what_is_scored_is_what_was_asked_for(run, monkeypatch, tmp_path):
    """The policy by its name, in the run's own environment."""
    asked = []

    class Told(Simulator):
        def __init__(self, env, repeat, models, episodes):
            asked.append((env, repeat))
            super().__init__(env, repeat, models, episodes)

    monkeypatch.setattr(scoring, "Evaluator", Told)
    monkeypatch.setattr(scoring.policy, "acting", lambda method, name, where: asked.append(name))
    made = Run(make_run(tmp_path / "b", "lawm", 0, [100], repeat=5))
    made.save(Position(0, 1), {"x": torch.zeros(1)}, {})
    scoring.score(made.path, 3, "prior")
    assert asked == ["prior", ("walker-walk", 5)]
    assert (made.path / "evaluation-prior.json").exists() and not (made.path / "evaluation-agent.json").exists()


def test_another_checkpoint_is_scored_anew(run):
    scoring.score(run.path, 8)
    run.save(Position(0, 2), {"x": torch.zeros(1)}, {})
    assert "over 5 episodes" in scoring.score(run.path, 5)
    assert files.read_json(run.path / "evaluation-agent.json")["update"] == 2


def test_a_score_is_of_the_checkpoint_that_was_loaded(run, monkeypatch):
    """A training that goes on meanwhile saves another."""
    loaded = []
    monkeypatch.setattr(scoring.policy, "load", lambda run, position: loaded.append(position))
    returns = Simulator.returns

    def slowly(self, acting):
        run.save(Position(0, 2), {"x": torch.zeros(1)}, {})
        return returns(self, acting)

    monkeypatch.setattr(Simulator, "returns", slowly)
    scoring.score(run.path, 5)
    assert loaded == [Position(0, 1)] and files.read_json(run.path / "evaluation-agent.json")["update"] == 1
    assert not scoring.is_scored(run, 5)


def test_a_checkpoint_that_a_training_drops_meanwhile_gives_way_to_the_last(run, monkeypatch):
    whole = run.load

    def slowly(run, position):
        if position == Position(0, 1):
            for update in (2, 3, 4):
                run.save(Position(0, update), {"x": torch.zeros(1)}, {})
        return whole(position)

    monkeypatch.setattr(scoring.policy, "load", slowly)
    scoring.score(run.path, 5)
    assert files.read_json(run.path / "evaluation-agent.json")["update"] == 4
    (run.checkpoint(Position(0, 4)) / TENSORS).write_bytes(b"torn")
    with pytest.raises(UserError, match="checkpoint-0-00000004.*not a readable checkpoint"):
        scoring.score(run.path, 5)


def test_a_score_that_cannot_be_kept_is_told_all_the_same(run):
    (run.path / "evaluation-agent.json").mkdir()
    with pytest.raises(UserError, match=r"evaluation-agent.json.*not kept: .*return 2.0 ± 1.4 over 5 episodes"):
        scoring.score(run.path, 5)


def test_a_run_that_cannot_be_scored_stops_no_other(run, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring.policy, "load", Run.load)
    bare = make_run(tmp_path / "b", "lawm", 1, [100], repeat=2)
    answer = CliRunner().invoke(lawm_train.cli.main, ["evaluate", str(bare), str(run.path), "--episodes", "3"])
    assert answer.exit_code == 2 and "over 3 episodes" in answer.stdout and "b: no checkpoint yet" in answer.stderr


def test_tables_say_over_how_many_episodes_a_score_is(run, tmp_path):
    scoring.score(run.path, 100)
    trained = make_run(tmp_path / "b", "lawm", 1, [100], episodes=10)
    records, _ = results.gather([run.path, trained])
    assert "| 49.5 | 100 |" in row(tables.run_table(records), "| a |")
    assert "| 100.0 | 20 |" in row(tables.run_table(records), "| b |")
    assert "| 2 | 1 | 74.8 ± 35.7 | 20, 100 |" in row(tables.cell_table(cells.of(records)), "| LAWM |")


def test_a_score_that_came_meanwhile_and_is_longer_or_later_stays(run, monkeypatch):
    other = results.Score(0, 1, 9.0, 0.0, [9.0] * 30)

    class Meanwhile(Simulator):
        def returns(self, acting):
            if later:
                run.save(Position(0, 2), {"x": torch.zeros(1)}, {})
            files.write_json(results.Score.file(run.path, "agent"), vars(other) | {"update": 1 + later})
            return super().returns(acting)

    monkeypatch.setattr(scoring, "Evaluator", Meanwhile)
    for later, episodes in ((False, 5), (True, 40)):
        results.Score.file(run.path, "agent").unlink(missing_ok=True)
        assert "not kept" in scoring.score(run.path, episodes)
        kept = results.Score.of(run.path, "agent")
        assert kept is not None and (len(kept.returns), kept.update) == (30, 1 + later)
