"""The picture and the table of what collectors earned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from test_collect_learning import ENV, made

from lawm_data import curves, envs
from lawm_data.collect import collect
from lawm_data.store import Store


def test_the_table_holds_every_episode(tmp_path: Path) -> None:
    collect(tmp_path, ENV, made(policy="random", episodes=3))
    header, *lines = (tmp_path / "figures" / f"collect-{ENV}-random.csv").read_text().splitlines()
    rows = Store(tmp_path / "raw").rows(ENV)
    assert header == "env,source,seed,order,control_steps,return"
    assert lines == [f"{ENV},random,0,{row.order},1000,{row.episode_return:.3f}" for row in rows]
    picture = (tmp_path / "figures" / f"collect-{ENV}-random.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and picture == curves.draw(rows, envs.spec(ENV, 50))


def test_control_steps_end_with_the_time_limit(tmp_path: Path) -> None:
    collect(tmp_path, ENV, made(policy="random", episodes=2, repeat=300))
    _, *lines = (tmp_path / "figures" / f"collect-{ENV}-random.csv").read_text().splitlines()
    assert [line.split(",")[4] for line in lines] == ["1000", "1000"], "of four agent steps the last is shorter"


def test_the_moving_mean_is_over_the_last_twenty() -> None:
    values = np.random.default_rng(0).normal(size=50)
    slow = [values[max(k - 19, 0) : k + 1].mean() for k in range(50)]
    np.testing.assert_allclose(curves._moving_mean(values), slow, atol=1e-12)
