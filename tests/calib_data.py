"""Small data of every kind that a calibration reads: what the tests of the sources share."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from claspkit.calib.data_hub import HubDataset
from claspkit.calib.sources import SourceOptions

COMMIT = "c0ffee" * 6 + "c0de"


def png(shade: int, size: tuple[int, int] = (12, 10)) -> bytes:
    """The bytes of a plain picture; other shades are other pictures."""
    buffer = io.BytesIO()
    Image.new("RGB", size, (shade, 255 - shade, 7)).save(buffer, "PNG")
    return buffer.getvalue()


def write_jsonl(folder: Path, rows: Sequence[object], name: str = "data.jsonl") -> Path:
    """A JSONL file beside pictures 0.png to 4.png; text and bytes rows are written as they are, with a newline."""
    folder.mkdir(parents=True, exist_ok=True)
    for shade in range(5):
        (folder / f"{shade}.png").write_bytes(png(shade))
    lines = [row if isinstance(row, bytes) else _line(row) for row in rows]
    (folder / name).write_bytes(b"".join(line + b"\n" for line in lines))
    return folder / name


def row(number: int = 0, **changes: object) -> dict[str, object]:
    """A valid JSONL row about picture ``number`` modulo 5."""
    plain: dict[str, object] = {
        "image": f"{number % 5}.png",
        "prompt": f"What is number {number}?",
        "answer": f"thing {number}",
    }
    return plain | changes


def table_columns(count: int, **changes: Sequence[object]) -> dict[str, Sequence[object]]:
    """Columns of ``count`` rows with embedded pictures, two questions a picture."""
    columns: dict[str, Sequence[object]] = {
        "image": [{"bytes": png(number // 2), "path": None} for number in range(count)],
        "question": [f"What is number {number}?" for number in range(count)],
        "answers": [[f"thing {number}"] for number in range(count)],
    }
    return columns | changes


def write_parquet(
    path: Path, columns: Mapping[str, Sequence[object]], pictures: Sequence[str] = ("image",)
) -> Path:
    """A parquet file as `datasets` writes it, ``pictures`` being columns of its Image type."""
    from datasets import Dataset
    from datasets import Image as ImageColumn

    table: Any = Dataset.from_dict(dict(columns))
    for name in pictures:
        table = table.cast_column(name, ImageColumn())
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_parquet(str(path))
    return path


def hub_cache(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    """Make ``folder`` the local hub cache, empty at first."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
    return folder


def keep_locks_in(monkeypatch: pytest.MonkeyPatch, folders: pytest.TempPathFactory) -> None:
    """Make `datasets` leave its lock files in a temporary folder instead of the home folder."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(folders.getbasetemp() / "datasets"))


def cached_repository(cache: Path, name: str) -> Path:
    """The snapshot folder of data set ``name`` in a hub cache, as a download leaves it."""
    repository = cache / f"datasets--{name.replace('/', '--')}"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True, exist_ok=True)
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / "main").write_text(COMMIT)
    return snapshot


def cache_known(cache: Path, dataset: HubDataset, count: int = 6) -> None:
    """Put a small stand-in for a data set of the tables in data_mixture.py into a hub cache, shaped like it."""
    snapshot, columns = cached_repository(cache, dataset.id), dataset.columns
    assert columns is not None
    assert dataset.files is not None
    body: dict[str, Sequence[object]] = {
        columns.prompt: [f"What is number {number}?" for number in range(count)]
    }
    for place, name in enumerate(columns.options):  # the last option is missing, as a table of texts writes it
        body[name] = [f"thing {place}" if place < len(columns.options) - 1 else "nan"] * count
    if columns.options:
        body[columns.answers] = ["ABC"[number % 3] for number in range(count)]
    elif columns.choices:
        body[columns.choices] = [["dog", "cat", "fox"]] * count
        body[columns.answers] = [number % 3 for number in range(count)]
    elif columns.answers == "answer":
        body[columns.answers] = ["yes"] * count
    elif dataset.id == "lmms-lab/VQAv2":
        body[columns.answers] = [[{"answer": "red", "answer_confidence": "yes", "answer_id": 1}] * 10] * count
    else:
        body[columns.answers] = [["red"] * 10] * count
    if columns.context:
        body[columns.context] = ["Foxes are red.", *["nan" if columns.options else ""] * (count - 1)]
    if columns.category:
        body[columns.category] = [f"kind {number % 2}" for number in range(count)]
    if columns.question_id:
        turned = [number // 2 + 1_000_000 * (number % 2) for number in range(count)]
        body[columns.question_id] = turned if columns.turned else [f"q{number // 2}" for number in range(count)]
    if columns.ocr:
        body[columns.ocr] = [["STOP", "12"], *[[]] * (count - 1)]
    pictures = [{"bytes": png(number), "path": f"{number}.png"} for number in range(count)]
    if dataset.images is None:
        write_parquet(snapshot / _some_file(dataset.files), body | {columns.image: pictures}, [columns.image])
        return
    table = dataset.images
    body[table.row_key] = [f"n{number}" for number in range(count)]
    write_parquet(snapshot / _some_file(dataset.files), body, [])
    entries: dict[str, Sequence[object]] = {
        table.key: [f"n{number}" for number in reversed(range(count))],
        table.image: pictures,
    }
    write_parquet(snapshot / _some_file(table.files), entries, [table.image])


def options(folder: Path, data: object = None, **changes: Any) -> SourceOptions:
    """Options that keep everything below ``folder``."""
    named = None if data is None else str(data)
    return SourceOptions(named, changes.pop("model_name", "some/model"), folder / "pictures", **changes)


def _line(row: object) -> bytes:
    return row.encode() if isinstance(row, str) else json.dumps(row).encode()


def _some_file(pattern: str) -> str:
    return pattern.replace("*.parquet", "*").replace("*", "00000-of-00001.parquet")
