"""One digest for settings that are equal in all that a method reads, although recipes or versions of lawm differ."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
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
    """The records, those whose settings come to the same with one digest: the one that most of them have.

    Settings come to the same where all parts that the method reads are equal; a setting that an older version did not
    know counts as its default, which is what that version did. Settings of which only the digest is known, or that
    today's code cannot read, keep theirs. So do records of one method on one slice that share their seeds: whoever
    trained a seed twice wants the two compared.
    """
    filled = [_filled(settings.get(record.settings)) for record in records]
    known = [record.settings for record in records]
    whole = [json.dumps(own) if own else digest for own, digest in zip(filled, known, strict=True)]
    read = [
        (own and _read(record.method.split()[0], own)) or record.settings
        for own, record in zip(filled, records, strict=True)
    ]
    shared = _commonest(whole, known)  # by all methods, so that those of one recipe stay side by side
    digests = _commonest(read, [shared[text] for text in whole])
    trained = Counter((_series(text, record), _seeds(record)) for text, record in zip(read, records, strict=True))
    apart = {series for (series, _), count in trained.items() if count > 1}
    return [
        record if _series(text, record) in apart else replace(record, settings=digests[text])
        for text, record in zip(read, records, strict=True)
    ]


def _series(text: str, record: Record) -> tuple[str, ...]:
    return text, record.method, record.env, record.slice, record.dataset


def _seeds(record: Record) -> tuple[float | None, int | None, int]:
    return record.label_frac, record.label_seed, record.seed


def _commonest(texts: Iterable[str], digests: Iterable[str]) -> dict[str, str]:
    """By text, the digest that occurs most often beside it."""
    counts: dict[str, Counter[str]] = {}
    for text, digest in zip(texts, digests, strict=True):
        counts.setdefault(text, Counter())[digest] += 1
    return {text: count.most_common(1)[0][0] for text, count in counts.items()}


def _filled(settings: dict[str, Any] | None) -> dict[str, Any] | None:
    """Settings with the default for what their version did not know; None where they are not known or not readable."""
    if settings is None:
        return None
    try:
        filled = config.as_dict(config.from_dict(settings, SECTIONS, ""))
    except UserError:  # of another version
        return None
    if "pool_gb" not in settings.get("train", {}):  # all data fitted, whatever the pool
        del filled["train"]["pool_gb"]
    return filled


def _read(method: str, filled: dict[str, Any]) -> str | None:
    """What a method reads of settings, as text; None for a method of another version."""
    try:
        parts = methods.parts_of(method)
    except UserError:
        return None
    if not methods.trains_by_updates(method):  # then it is how often a run is evaluated
        train = {key: value for key, value in filled["train"].items() if key != "updates"}
        filled = filled | {"train": train}
    return json.dumps([reduce(getitem, name.split("."), filled) for name in parts])
