"""Settings that no training can work with are told by their key, before anything is read."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from operator import attrgetter
from typing import Any, get_args, get_type_hints

import pytest

from lawm_data import collect, config, slicing
from lawm_data.errors import UserError
from lawm_train import grid, policy


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
        ("model.observation_clip=1.0e300", "1000000000 or less"),
        ("model.weight_decay=2", "1 or less"),
    ],
)
def test_a_setting_out_of_range_names_its_key_and_the_bound(setting: str, bound: str) -> None:
    key = setting.partition("=")[0]
    with pytest.raises(UserError, match=rf"{key} is .*, expected {bound}"):
        config.load("cpu", [setting], policy.SECTIONS, {})


def numbers(cls: type, place: str) -> Iterator[tuple[str, Any]]:
    """The numbers of a section of settings and of the parts within it, by key, with their types."""
    for name, kind in get_type_hints(cls, include_extras=True).items():
        if dataclasses.is_dataclass(kind):
            yield from numbers(kind, f"{place}.{name}")
        elif {int, float} & {kind, *get_args(kind), *(inner for one in get_args(kind) for inner in get_args(one))}:
            yield f"{place}.{name}", kind


def test_every_number_of_every_section_has_bounds() -> None:
    """But for lists, and what a rule of slices or another check decides."""
    sections = policy.SECTIONS | {"collect": collect.Config, "split": slicing.Config, "grid": grid.Config}
    assert sections.keys() == set(config.SECTIONS)
    found = [pair for name, cls in sections.items() for pair in numbers(cls, name)]
    free = [key for key, kind in found if "Bounds" not in str(kind)]
    assert len(found) > 80 and {key for key in free if not key.startswith("split.rules.")} == {
        "split.label_frac", "grid.label_fracs"
    }  # fmt: skip


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
