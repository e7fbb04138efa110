"""The score of a run: its last checkpoint over many episodes, kept with the run."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean, pstdev

from lawm_data import files
from lawm_data.errors import UserError
from lawm_data.runs import Run, trained
from lawm_train import policy
from lawm_train.evaluate import Evaluator, check_sizes

EPISODES = 100  # of a reported score


def score(path: Path, episodes: int, policy_name: str = "agent") -> str:
    """Score a run's last checkpoint; keeps the returns in RUN/evaluation-<policy>.json and returns a line of text.

    A score of the same checkpoint over more episodes is kept as it is.
    """
    run = trained(path)
    saved = run.config
    if saved["repeat"] is None:
        raise UserError(f"{path}: {saved['env']} has no simulator here; act through lawm_train.policy in your own")
    if is_scored(run, episodes + 1, policy_name):
        kept = files.read_json(_file(run, policy_name))["returns"]
        return f"{_told(path, kept)}; this score is kept, as {episodes} episodes are fewer"
    check_sizes(str(path), saved["env"], saved["repeat"], saved["sizes"]["observation"], saved["sizes"]["action"])
    position = run.newest  # as it is now: a training may go on meanwhile
    acting = policy.acting(policy.load(run, position), policy_name, str(path))
    own = Evaluator(saved["env"], saved["repeat"], 1, episodes).returns(acting)[0]
    row = {**position._asdict(), "mean": fmean(own), "std": pstdev(own), "returns": own}
    files.write_json(_file(run, policy_name), row)
    return _told(path, own)


def is_scored(run: Run, episodes: int, policy_name: str = "agent") -> bool:
    """Whether the last checkpoint has a score over at least so many episodes."""
    path = _file(run, policy_name)
    if not path.is_file():
        return False
    row = files.read_json(path)
    return [(row["phase"], row["update"])] == run.positions()[-1:] and len(row["returns"]) >= episodes


def _told(path: Path, returns: list[float]) -> str:
    mean, std = fmean(returns), pstdev(returns)
    return f"{path}: return {mean:.1f} ± {std:.1f} over {len(returns)} episodes, return / 10 = {mean / 10:.1f}"


def _file(run: Run, policy_name: str) -> Path:
    return run.path / f"evaluation-{policy_name}.json"
