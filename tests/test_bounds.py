"""Settings that no training can work with are told by their key, before anything is read."""

from __future__ import annotations

from operator import attrgetter

import pytest

from lawm_data import config
from lawm_data.errors import UserError
from lawm_train import policy


@pytest.mark.parametrize(
    ("setting", "bound"),
    [
        ("model.clip=0", "1e-06 or more"),
        ("model.action_sigma=0", "1e-06 or more"),
        ("model.balance=1.5", "1 or less"),
        ("agent.clap.discount=2", "1 or less"),
        ("agent.clap.lambda_=-1", "0 or more"),
        ("agent.clap.eps=-1", "0 or more"),
        ("agent.td3bc.target_rate=2", "1 or less"),
        ("agent.clap.acting_rate=2", "1 or less"),
        ("agent.td3bc.acting_rate=-1", "0 or more"),
        ("agent.bc.acting_rate=2", "1 or less"),
        ("agent.idm.dropout=1.0", "0.99 or less"),
        ("agent.idm.clip=0", "1e-06 or more"),
        ("agent.bc.clip=0", "1e-06 or more"),
        ("agent.td3bc.noise_clip=-0.5", "0 or more"),
        ("agent.td3bc.target_noise=-1", "0 or more"),
        ("agent.td3bc.alpha=-1", "0 or more"),
        ("agent.clap.entropy=-1", "0 or more"),
        ("model.unlabeled_weight=-1", "0 or more"),
        ("model.weights.observation=-1", "0 or more"),
        ("model.free_nats=-1", "0 or more"),
        ("train.labeled_share=1.5", "1 or less"),
    ],
)
def test_a_setting_out_of_range_names_its_key_and_the_bound(setting: str, bound: str) -> None:
    key = setting.partition("=")[0]
    with pytest.raises(UserError, match=rf"{key} is .*, expected {bound}"):
        config.load("cpu", [setting], policy.SECTIONS, {})


@pytest.mark.parametrize(
    ("section", "key", "bound"),
    [
        ("model", "balance", 1.0),
        ("agent", "clap.discount", 1.0),
        ("agent", "idm.dropout", 0.0),
        ("agent", "clap.eps", 0.0),
        ("model", "weights.latent_kl", 0.0),
        ("model", "free_nats", 0.0),
    ],
)
def test_the_bounds_themselves_are_taken(section: str, key: str, bound: float) -> None:
    loaded = config.load("cpu", [f"{section}.{key}={bound}"], policy.SECTIONS, {})
    assert attrgetter(key)(loaded[section]) == bound
