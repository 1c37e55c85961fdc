"""The hub out of reach, half in the cache, or answering: what is said, and which commit is read."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from calib_data import (
    COMMIT,
    cache_known,
    cached_repository,
    hub_cache,
    keep_locks_in,
    options,
    table_columns,
)
from house import fresh

from claspkit.calib import data_hub
from claspkit.calib.data_hub import HubDataset, Located, download_command, locate
from claspkit.calib.data_mixture import MIXTURE
from claspkit.calib.sources import open_source
from claspkit.profiles.errors import ResourceError, UsageError


@pytest.fixture(autouse=True)
def _no_traces_at_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_locks_in(monkeypatch, tmp_path_factory)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache."""
    return hub_cache(monkeypatch, tmp_path / "cache")


def test_what_is_missing_is_said_all_at_once(cache: Path, tmp_path: Path) -> None:
    here, *missing = MIXTURE
    cache_known(cache, here)
    with pytest.raises(ResourceError) as caught:
        open_source(options(tmp_path)).load()
    text = str(caught.value)
    assert text.startswith(f"{len(missing)} data set(s) cannot be read:")
    assert f"  {here.id} (" not in text
    for dataset in missing:
        assert f"  {dataset.id} (config " in text
        assert f", split {dataset.split})" in text
        assert download_command(dataset) in text
    assert "offline mode is enabled" in text
    assert f"looked for in {cache}" in text
    for remedy in ("connect this machine", "--data FILE.jsonl", "--model mini"):
        assert remedy in text
    assert not (tmp_path / "pictures").exists()


def test_the_way_out_is_a_command_that_fetches_just_what_is_needed() -> None:
    gqa = next(dataset for dataset in MIXTURE if dataset.images)
    assert download_command(gqa) == (
        "hf download lmms-lab/GQA --repo-type dataset --include 'val_balanced_instructions/*.parquet' "
        "--include 'val_balanced_images/*.parquet' --include README.md"
    )
    assert (
        download_command(HubDataset("a/b", revision="v1"))
        == "hf download a/b --repo-type dataset --revision v1"
    )


def test_a_copy_without_the_files_needed_is_missing(cache: Path, tmp_path: Path) -> None:
    cache_known(cache, MIXTURE[0])
    shutil.rmtree(next(cache.rglob("data")))
    with pytest.raises(ResourceError, match="the copy in the cache lacks data/validation-"):
        open_source(options(tmp_path, MIXTURE[0].id)).load()


@pytest.mark.parametrize("offline", [True, False])
def test_an_unreachable_hub_is_met_for_real(offline: bool, tmp_path: Path) -> None:
    """In an interpreter of its own, once told to stay offline and once with nobody listening at the hub's address."""
    settings = {"HF_HUB_CACHE": str(tmp_path / "cache"), "HF_ENDPOINT": "http://127.0.0.1:9"}
    settings["HF_HUB_OFFLINE"] = "1" if offline else "0"
    code = f"""
import os
os.environ.update({settings!r})
from pathlib import Path
from claspkit.calib.sources import SourceOptions, open_source
from claspkit.profiles.errors import ClaspError
try:
    open_source(SourceOptions(None, "llava-1.5-7b", Path("pictures"))).load()
except ClaspError as error:
    print(error.exit_code, error)
"""
    said = fresh(code, cwd=tmp_path)
    first = "lmms-lab/VQAv2 (config default, split validation): no copy of revision main in the cache"
    assert said.startswith(f"5 7 data set(s) cannot be read:\n  {first}\n")
    assert ("offline mode is enabled" if offline else "ConnectError: ") in said
    assert said.count("the hub cannot be asked") == 1
    assert f"looked for in {tmp_path / 'cache'}" in said


def test_the_commit_is_the_hubs_word_when_it_can_be_had(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Api:
        def dataset_info(self, name: str, *, revision: str | None, timeout: float) -> Any:
            assert (name, revision, timeout) == ("acme/toy", "v2", data_hub.HUB_TIMEOUT)
            return type("Info", (), {"sha": COMMIT})()

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    assert locate(HubDataset("acme/toy", revision="v2")) == Located(COMMIT, None)
    asked: list[dict[str, Any]] = []

    def load_dataset(where: str, config: str | None, **rest: Any) -> Any:
        from datasets import Dataset

        asked.append({"where": where, "config": config, **rest})
        return Dataset.from_dict(table_columns(2)).to_iterable_dataset()

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    result = open_source(options(tmp_path, "acme/toy:c@s#v2")).load()
    assert asked == [
        {"where": "acme/toy", "config": "c", "split": "s", "revision": COMMIT, "streaming": True}
    ]
    assert json.dumps(result.datasets[0]["revision"]) == f'"{COMMIT}"'
    assert len(result.samples) == 2


def test_a_data_set_the_hub_does_not_know_is_a_usage_error(
    monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    from huggingface_hub.errors import RepositoryNotFoundError

    class Api:
        def dataset_info(self, *_: object, **__: object) -> None:
            raise RepositoryNotFoundError(
                "404: no such repository", response=type("R", (), {"headers": {}, "request": None})()
            )

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    with pytest.raises(UsageError, match=r"the hub knows no data set acme/toy \(revision main\)"):
        locate(HubDataset("acme/toy"))
    cached_repository(cache, "acme/toy")
    assert isinstance(locate(HubDataset("acme/toy")), Located)
