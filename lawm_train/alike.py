"""Settings that come to the same for a method, whatever else a version of the code knew or another method reads."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from operator import getitem
from typing import Any

from lawm_data import config
from lawm_data.errors import UserError
from lawm_train import methods
from lawm_train.policy import SECTIONS
from lawm_train.record import Record


def pooled(records: Sequence[Record], settings: Mapping[str, dict[str, Any]]) -> list[Record]:
    """The records, with one digest where their settings come to the same: the one that most of them have.

    They do where all parts that the method reads are equal, with the default for what a version did not know yet: it is
    what was done before. Settings that are known by their digest alone, or that today's code cannot read, stay apart;
    so do those of a method on a slice that were trained with the same seeds, as what was tried.
    """
    read = [_read(record.method.split()[0], settings.get(record.settings)) or record.settings for record in records]
    digests: dict[str, Counter[str]] = {}
    for text, record in zip(read, records, strict=True):
        digests.setdefault(text, Counter())[record.settings] += 1
    trained = Counter((*_series(text, record), *_seeds(record)) for text, record in zip(read, records, strict=True))
    apart = {key[:-3] for key, count in trained.items() if count > 1}
    return [
        record if _series(text, record) in apart else replace(record, settings=digests[text].most_common(1)[0][0])
        for text, record in zip(read, records, strict=True)
    ]


def _series(text: str, record: Record) -> tuple[str, ...]:
    return text, record.method, record.env, record.slice, record.dataset


def _seeds(record: Record) -> tuple[float | None, int | None, int]:
    return record.label_frac, record.label_seed, record.seed


def _read(method: str, settings: dict[str, Any] | None) -> str | None:
    """What a method reads of settings, as text; None where that is not known."""
    if settings is None:
        return None
    try:
        filled = config.as_dict(config.from_dict(settings, SECTIONS, ""))
        parts = methods.parts_of(method)
    except UserError:  # of another version
        return None
    if "pool_gb" not in settings.get("train", {}):  # all data fitted, whatever the pool
        del filled["train"]["pool_gb"]
    if not methods.trains_by_updates(method):  # then it is how often a run is evaluated
        del filled["train"]["updates"]
    return json.dumps([reduce(getitem, name.split("."), filled) for name in parts])
