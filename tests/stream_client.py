"""A client process of the tests: `python stream_client.py WHERE [CACHE] [--with-actions]` reads a whole slice.

Prints JSON: digest, revision, and by split the id and the sha256 of the content of every episode.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable
from pathlib import Path

from lawm_data.episode import Episode
from lawm_data.errors import UserError
from lawm_train.stream import open_dataset


def fingerprint(episode: Episode) -> str:
    """sha256 of everything that an episode holds."""
    action = b"" if episode.action is None else episode.action.tobytes()
    content = episode.observation.tobytes() + action + episode.reward.tobytes()
    return hashlib.sha256(content + f"{episode.episode_id} {episode.terminal}".encode()).hexdigest()


def fingerprints(episodes: Iterable[Episode]) -> list[list[str]]:
    return [[episode.episode_id, fingerprint(episode)] for episode in episodes]


def main(where: str, cache: str | None, with_actions: bool) -> None:
    dataset = open_dataset(where, Path(cache) if cache else None)
    slice_ = dataset.choose_slice()
    read = {
        split: fingerprints(dataset.episodes(slice_, split, with_actions=with_actions))
        for split in ("labeled", "unlabeled", "validation")
    }
    print(json.dumps({"digest": dataset.digest, "revision": dataset.revision, **read}))


if __name__ == "__main__":
    arguments = [word for word in sys.argv[1:] if word != "--with-actions"]
    try:
        main(arguments[0], arguments[1] if len(arguments) > 1 else None, "--with-actions" in sys.argv)
    except UserError as error:
        sys.exit(f"error: {error}")
