"""The score of a run: its last checkpoint over many episodes, kept with the run."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from statistics import fmean, pstdev

from lawm_data import files
from lawm_data.errors import UserError
from lawm_data.runs import Run, trained
from lawm_train import policy
from lawm_train.evaluate import Evaluator, check_sizes
from lawm_train.results import Score

EPISODES = 100  # of a reported score


def score(path: Path, episodes: int, policy_name: str = "agent") -> str:
    """Score a run's last checkpoint; keeps the returns in RUN/evaluation-<policy>.json and returns a line of text.

    A score of the same checkpoint over more episodes is kept as it is.
    """
    run = trained(path)
    saved = run.config
    if saved["repeat"] is None:
        raise UserError(f"{path}: {saved['env']} has no simulator here; act through lawm_train.policy in your own")
    kept = _of_last(run, policy_name)
    if kept and len(kept.returns) > episodes:
        return f"{_told(path, kept.returns)}; this score is kept, as {episodes} episodes are fewer"
    check_sizes(str(path), saved["env"], saved["repeat"], saved["sizes"]["observation"], saved["sizes"]["action"])
    position, method = policy.load_newest(run)
    acting = policy.acting(method, policy_name, str(path))
    own = Evaluator(saved["env"], saved["repeat"], 1, episodes).returns(acting)[0]
    kept = _of_last(run, policy_name)  # of another command meanwhile
    if kept and ((kept.phase, kept.update) != position or len(kept.returns) > episodes):
        return f"{_told(path, own)}; not kept, as a later or longer score is there now"
    found = Score(**position._asdict(), mean=fmean(own), std=pstdev(own), returns=own)
    try:
        files.write_json(Score.file(path, policy_name), asdict(found))
    except UserError as error:
        raise UserError(f"{error}; so this is not kept: {_told(path, own)}") from None
    return _told(path, own)


def is_scored(run: Run, episodes: int, policy_name: str = "agent") -> bool:
    """Whether the last checkpoint has a score over at least so many episodes."""
    score = _of_last(run, policy_name)
    return score is not None and len(score.returns) >= episodes


def _of_last(run: Run, policy_name: str) -> Score | None:
    """The score of the last checkpoint."""
    score = Score.of(run.path, policy_name)
    return score if score and [(score.phase, score.update)] == run.positions()[-1:] else None


def _told(path: Path, returns: list[float]) -> str:
    mean, std = fmean(returns), pstdev(returns)
    return f"{path}: return {mean:.1f} ± {std:.1f} over {len(returns)} episodes, return / 10 = {mean / 10:.1f}"
