"""The demo's data: deterministic, readable by the importer, and with the actions that were executed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lawm_data import envs, files
from lawm_data.collect import env_seed
from lawm_data.episode import Episode
from lawm_data.importers import d4rl

ENV = "cartpole-swingup"  # the cheapest to simulate


@pytest.fixture(scope="module")
def demo_data(recipes: Path):
    return pytest.importorskip("demo_data")


@pytest.fixture(scope="module")
def recipes() -> Path:
    return Path(__file__).parent.parent / "recipes"
