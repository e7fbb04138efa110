"""TensorBoard events hold what metrics.jsonl holds, and a resumed run supersedes what it goes back behind."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from lawm_data.errors import UserError
from lawm_data.runs import Run


def logged(path: Path, updates: range, shift: float) -> None:
    run = Run(path, tensorboard=True)
    path.mkdir(exist_ok=True)
    for update in updates:
        run.log({"kind": "train", "phase": "model", "update": update, "loss": update + shift})


def test_events_hold_the_metrics(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logged(tmp_path / "run", range(1, 6), 0.0)
    logged(tmp_path / "run", range(4, 8), 0.5)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    found = {event.step: event.value for event in events.Scalars("model/train/loss")}
    assert found == {row["update"]: row["loss"] for row in Run(tmp_path / "run").metrics()}
    assert found == {1: 1.0, 2: 2.0, 3: 3.0, 4: 4.5, 5: 5.5, 6: 6.5, 7: 7.5}


def test_without_the_package_one_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match="pip install tensorboard"):
        Run(tmp_path, tensorboard=True)
