"""Where the Hub keeps contents: another host that must not see the token, trees of many pages, and Xet."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import hf_xet
import pytest
from loopback_http import Request, Response, Server, ranged
from loopback_hub import LoopbackHub
from made_dataset import made_episodes, make_dataset
from processes import client, python

from lawm_data.manifest import Manifest

REPO = "tester/lawm-custom-made"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_dataset(tmp_path / "lawm" / "dataset" / "custom-made", made_episodes(), per_shard=4)
    return tmp_path / "lawm" / "dataset" / "custom-made"


def test_token_is_not_sent_to_another_host(folder: Path, tmp_path: Path) -> None:
    seen: list[Request] = []

    def content(request: Request) -> Response:
        seen.append(request)
        return ranged(request, (tmp_path / "hub" / "objects" / request.path.strip("/")).read_bytes(), {})

    with Server(content, host="localhost") as storage, LoopbackHub(tmp_path / "hub") as hub:
        hub.storage = storage
        pushed = client(hub, "push", folder, REPO)["outcomes"][REPO]
        hub.dataset(REPO).private = True
        outcomes = client(hub, "pull", REPO, folder)["outcomes"]
        assert pushed["error"] is None and outcomes[REPO]["error"] is None
        assert outcomes[REPO]["content"] == outcomes[str(folder)]["content"]
        assert len(seen) >= 8 and not any("authorization" in request.headers for request in seen)


def test_tree_of_many_pages(folder: Path, tmp_path: Path) -> None:
    with LoopbackHub(tmp_path / "hub") as hub:
        hub.page = 3
        assert client(hub, "push", folder, REPO)["outcomes"][REPO]["error"] is None
        again = python(hub, "-m", "lawm_data.cli", "push", "--root", tmp_path / "lawm", "--repo", REPO)
        assert "nothing has changed" in again.stdout, again.stderr
        pages = [path for method, path, _ in hub.requests if "/tree/" in path]
        assert len(pages) > 3 * 3


@pytest.mark.skipif(version("hf-xet") != "1.8.0", reason="its local store is no public format")
def test_through_the_local_store_of_xet(folder: Path, tmp_path: Path) -> None:
    manifest = Manifest.load(folder)
    paths = [path for path in manifest.files if path.endswith(".arrow")]
    hashes = hf_xet.hash_files([str(folder / path) for path in paths])
    with LoopbackHub(tmp_path / "hub") as hub:
        hub.xet = tmp_path / "xet"
        hub.xet_hashes = {manifest.files[path].sha256: one.hash for path, one in zip(paths, hashes, strict=True)}
        assert client(hub, "push", folder, REPO)["outcomes"][REPO]["error"] is None
        assert not any("/lfs" in path for _, path, _ in hub.requests), "LFS took no part"
        outcomes = client(hub, "pull", REPO, folder)["outcomes"]
    assert outcomes[REPO]["error"] is None and outcomes[REPO]["content"] == outcomes[str(folder)]["content"]
