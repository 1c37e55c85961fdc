"""Tables: rows of parquet files and hub data sets, and what is said when a data set is out of reach."""

import io
from collections.abc import Sequence
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
    png,
    table_columns,
    write_jsonl,
    write_parquet,
)
from PIL import Image

from claspkit.calib.data_benchmarks import BENCHMARKS
from claspkit.calib.data_hub import HubDataset
from claspkit.calib.data_mixture import MIXTURE, OTHERS
from claspkit.calib.data_table import (
    OPTIONS_SUFFIX,
    SHORT_ANSWER,
    Columns,
    TablePictures,
    TableRules,
    find_columns,
    gather_rows,
    plain_rows,
    reference_answers,
)
from claspkit.calib.samples import RowError
from claspkit.calib.scorers import SCORERS, score_answer
from claspkit.calib.sources import Gathering, Limits, LoadResult, Mark, label_of, open_source
from claspkit.profiles.errors import BadDataError, UsageError
from claspkit.profiles.intents import INTENT_IDS

PETS = ["dog", "cat", "fox"]


@pytest.fixture(autouse=True)
def _no_traces_at_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_locks_in(monkeypatch, tmp_path_factory)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache."""
    return hub_cache(monkeypatch, tmp_path / "cache")


def load(folder: Path, columns: dict[str, Sequence[object]], **changes: Any) -> LoadResult:
    """Load a parquet file with these columns."""
    pictures = [name for name in ("image", "images") if name in columns]
    path = write_parquet(
        folder / "own" / "t.parquet", columns, pictures if changes.pop("typed", True) else []
    )
    return open_source(options(folder, path, **changes)).load()


@pytest.mark.parametrize(
    ("value", "choices", "answers"),
    [
        ("cat", None, ["cat"]),
        (["cat", "kitten"], None, ["cat", "kitten"]),
        ([{"answer": "cat", "answer_id": 1}, {"answer": "dog"}], None, ["cat", "dog"]),
        (3, None, ["3"]),
        (2.5, None, ["2.5"]),
        (True, None, ["yes"]),
        (False, PETS, ["no"]),
        ([1, 2], None, ["1", "2"]),
        (0, PETS, ["A", "dog"]),
        (2, PETS, ["C", "fox"]),
        ("C", PETS, ["C"]),
        (0, ["B", "A"], ["B"]),  # the letter A would name the other option
        ("['cat', 'dog']", None, ["['cat', 'dog']"]),
    ],
)
def test_an_answer_in_any_shape_is_the_references_it_means(
    value: object, choices: object, answers: list[str]
) -> None:
    assert reference_answers(value, choices) == answers


@pytest.mark.parametrize("value", [3, -1, 10**9])
def test_the_number_of_no_option_is_refused(value: int) -> None:
    with pytest.raises(RowError, match=f"option {value} of 3"):
        reference_answers(value, PETS)


def test_embedded_pictures_become_files_named_by_their_hash(tmp_path: Path) -> None:
    result = load(tmp_path, table_columns(6))
    assert [sample.source.index for sample in result.samples] == list(range(6))
    assert len({sample.image for sample in result.samples}) == 3
    for sample in result.samples:
        assert sample.image == f"{sample.image_sha256}.png"
        assert (tmp_path / "pictures" / sample.image).read_bytes() == png(sample.source.index // 2)


def test_options_are_written_behind_the_question(tmp_path: Path) -> None:
    result = load(tmp_path, table_columns(2, answers=[1, 0]) | {"choices": [PETS, PETS]})
    first = result.samples[0]
    assert first.prompt == "What is number 0?\nA. dog\nB. cat\nC. fox" + OPTIONS_SUFFIX
    assert (first.answers, first.choices) == (("B", "cat"), tuple(PETS))
    assert SCORERS[first.scorer]("B", first.answers, first.choices) == 1.0


def test_every_bad_row_of_a_table_is_quarantined(tmp_path: Path) -> None:
    cut, good = png(9, (99, 99))[:-40], png(1)
    pictures = [good, b"", b"hello", cut, None, good, good, good]
    columns = table_columns(
        8,
        image=[None if data is None else {"bytes": data, "path": None} for data in pictures],
        question=[*["What?"] * 5, None, " ", "What?"],
        answers=[*[["cat"]] * 7, []],
    )
    result = load(tmp_path, columns)
    assert [sample.source.index for sample in result.samples] == [0]
    reasons = {found.where: found.reason for found in result.quarantine}
    expected = [
        "the file is empty",
        "not a picture",
        "damaged or cut short",
        "neither a picture nor a path",
        "question must be text, not None",
        "question is empty",
        "answers holds no answer",
    ]
    for number, reason in enumerate(expected, start=1):
        assert reason in reasons[f"t.parquet:{number}"]


def test_pictures_may_be_bytes_paths_or_lists_of_one(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "own", [])  # leaves 0.png to 4.png beside the table
    raw = load(tmp_path, table_columns(2, image=[png(0), png(1)]), typed=False)
    paths = load(tmp_path, table_columns(2, image=["0.png", "../own/1.png"]), typed=False)
    assert [s.image_sha256 for s in raw.samples] == [s.image_sha256 for s in paths.samples]
    outside = load(tmp_path, table_columns(2, image=["0.png", "../../etc/passwd"]), typed=False)
    assert "no such file" in outside.quarantine[0].reason or "outside" in outside.quarantine[0].reason
    several: dict[str, Sequence[object]] = {
        "images": [[{"bytes": png(0), "path": None}], [{"bytes": png(0), "path": None}] * 2]
    }
    listed: dict[str, Sequence[object]] = {"question": ["a?", "b?"], "answer": ["x", "y"]}
    result = load(tmp_path, listed | several, typed=False)
    assert result.samples[0].image_sha256 == raw.samples[0].image_sha256
    assert result.quarantine[0].reason == "the row holds 2 pictures; one is supported"


def test_a_dataset_in_memory_goes_through_the_same_mapping(tmp_path: Path) -> None:
    from datasets import Dataset, List
    from datasets import Image as ImageColumn

    columns = table_columns(4)
    columns["image"] = [[picture] for picture in columns["image"]]
    table = Dataset.from_dict(columns).cast_column("image", List(ImageColumn()))
    gathering = Gathering("memory")
    rules = TableRules("memory", None, "train", Columns("image", "question", "answers"), suffix="\nBriefly.")
    gather_rows(plain_rows(table), rules, TablePictures(tmp_path, None), gathering, Limits(3))
    assert [sample.prompt for sample in gathering.samples] == [
        f"What is number {n}?\nBriefly." for n in range(3)
    ]
    assert gathering.quarantine == []


def test_a_stored_jpeg_keeps_its_bytes(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("L", (9, 9)).save(buffer, "JPEG")
    result = load(tmp_path, table_columns(1, image=[{"bytes": buffer.getvalue(), "path": "x.png"}]))
    stored = tmp_path / "pictures" / result.samples[0].image
    assert (stored.suffix, stored.read_bytes()) == (".jpg", buffer.getvalue())


def test_columns_are_found_or_asked_for() -> None:
    assert find_columns(["id", "image", "question", "answer"], {}) == Columns("image", "question", "answer")
    given = find_columns(["photo", "question", "answers", "answer"], {"image": "photo", "answers": "answer"})
    assert given == Columns("photo", "question", "answer")
    with pytest.raises(
        UsageError, match=r"(?s)looks like image or answers; the columns are photo, question\..*--columns"
    ):
        find_columns(["photo", "question"], {})
    with pytest.raises(UsageError, match="there is no role answer; the columns are photo"):
        find_columns(["photo"], {"answer": "photo"})
    with pytest.raises(UsageError, match="there is no column 'foto' for image; the columns are photo"):
        find_columns(["photo"], {"image": "foto"})


def test_a_folder_of_files_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    for name, number in (("b", 1), ("a", 0)):
        write_parquet(tmp_path / "own [x]" / f"{name}.parquet", table_columns(1, question=[f"{number}?"]))
    result = open_source(options(tmp_path, tmp_path / "own [x]")).load()
    assert [sample.prompt for sample in result.samples] == ["0?", "1?"]
    assert result.samples[0].source.dataset == "own [x]"


@pytest.mark.parametrize("damage", ["missing", "empty", "text", "cut", "no rows", "empty folder"])
def test_a_damaged_table_is_bad_data(damage: str, tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "own" / "t.parquet", table_columns(0 if damage == "no rows" else 50))
    if damage == "missing":
        path.unlink()
    elif damage == "empty folder":
        path.unlink()
        path = path.parent
    elif damage != "no rows":
        path.write_bytes({"empty": b"", "text": b"hello" * 99, "cut": path.read_bytes()[:-60]}[damage])
    with pytest.raises(BadDataError):
        open_source(options(tmp_path, path)).load()


def test_a_page_damaged_further_down_is_bad_data(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "own" / "t.parquet", table_columns(300))
    data = bytearray(path.read_bytes())
    data[1000:3000] = bytes(2000)
    path.write_bytes(data)
    try:
        result = open_source(options(tmp_path, path)).load()
    except BadDataError:
        return
    assert result.quarantine  # damage that Arrow does not notice sits in a picture, and that is noticed


def _named(dataset: HubDataset) -> str:
    """A data set as --data says it in full."""
    return f"{dataset.id}:{dataset.config}@{dataset.split}" if dataset.config else f"{dataset.id}@{dataset.split}"


@pytest.mark.parametrize("dataset", [*MIXTURE, *OTHERS, *BENCHMARKS], ids=_named)
def test_every_known_data_set_is_read_from_the_cache(
    dataset: HubDataset, cache: Path, tmp_path: Path
) -> None:
    cache_known(cache, dataset)
    result = open_source(options(tmp_path, dataset.id if dataset not in BENCHMARKS else _named(dataset))).load()
    assert result.quarantine == []
    assert [sample.source.index for sample in result.samples] == list(range(6))
    assert {sample.scorer for sample in result.samples} == {dataset.scorer}
    name = f"{dataset.id}:{dataset.config}" if dataset.config else dataset.id
    assert result.datasets == [{"name": name, "revision": COMMIT, "split": dataset.split, "samples": 6}]
    columns = dataset.columns
    assert columns is not None
    ending = OPTIONS_SUFFIX if columns.choices or columns.options else dataset.suffix
    assert all(sample.prompt.endswith(ending) for sample in result.samples)
    assert set(dataset.intents) <= set(INTENT_IDS)


def test_a_split_of_its_own_is_a_data_set_of_its_own(cache: Path, tmp_path: Path) -> None:
    """What the mixture draws from is meant where nothing else is said; another split has its own row."""
    for dataset in (*MIXTURE, *BENCHMARKS):
        if dataset.id in ("lmms-lab/ScienceQA", "lmms-lab/textvqa"):
            cache_known(cache, dataset)
    found = {
        name: open_source(options(tmp_path, name)).load().datasets[0]["split"]
        for name in ("lmms-lab/ScienceQA", "lmms-lab/ScienceQA@test", "lmms-lab/textvqa", "lmms-lab/textvqa@validation")
    }
    assert list(found.values()) == ["validation", "test", "train", "validation"]


def test_options_in_columns_of_their_own_and_turned_copies(cache: Path, tmp_path: Path) -> None:
    """MMBench: a missing option ends the list, copies of a question have one number, "nan" is no hint."""
    mmbench = next(dataset for dataset in BENCHMARKS if dataset.config == "en")
    cache_known(cache, mmbench)
    result = open_source(options(tmp_path, "lmms-lab/MMBench")).load()
    first, second, third, *_ = result.samples
    assert first.prompt.startswith("Context: Foxes are red.\nWhat is number 0?\nA. thing 0\nB. thing 1\nC. thing 2\n")
    assert second.prompt.startswith("What is number 1?\nA. thing 0")
    assert first.choices == ("thing 0", "thing 1", "thing 2")
    assert [score_answer(sample, "B") for sample in (first, second, third)] == [0.0, 1.0, 0.0]
    marks = [result.marks[sample.uid] for sample in result.samples]
    assert [mark.question for mark in marks] == ["0", "0", "1", "1", "2", "2"]
    assert [mark.category for mark in marks] == ["kind 0", "kind 1"] * 3


def test_tokens_read_off_the_picture_stand_behind_the_question(cache: Path, tmp_path: Path) -> None:
    """As LLaVA is evaluated on TextVQA; the words stand there also where nothing was read."""
    textvqa = next(dataset for dataset in BENCHMARKS if dataset.id.endswith("textvqa"))
    cache_known(cache, textvqa)
    first, second, *_ = open_source(options(tmp_path, _named(textvqa))).load().samples
    assert first.prompt == "What is number 0?\nReference OCR token: STOP, 12" + SHORT_ANSWER
    assert second.prompt == "What is number 1?\nReference OCR token: " + SHORT_ANSWER


def test_marks_change_no_sample(tmp_path: Path) -> None:
    """A category or a question's number is no part of a sample: its uid, and so a calibration, stays what it was."""
    plain = write_parquet(tmp_path / "a" / "t.parquet", table_columns(4))
    odd = [1.5, None, "x" * 300, True]
    marked = table_columns(4, category=["cats", "", "dogs", "dogs"], question_id=["1", "1", "2", "3"])
    before = open_source(options(tmp_path, plain)).load()
    after = open_source(options(tmp_path, write_parquet(tmp_path / "b" / "t.parquet", marked))).load()
    assert [sample.uid for sample in after.samples] == [sample.uid for sample in before.samples]
    assert before.marks == {}
    assert [after.marks[sample.uid] for sample in after.samples] == [
        Mark("cats", "1"),
        Mark(None, "1"),
        Mark("dogs", "2"),
        Mark("dogs", "3"),
    ]
    assert [label_of(value) for value in odd] == [None] * 4


def test_the_picture_table_is_joined_by_its_key(cache: Path, tmp_path: Path) -> None:
    gqa = next(dataset for dataset in MIXTURE if dataset.images)
    cache_known(cache, gqa)
    result = open_source(options(tmp_path, gqa.id, max_rows=4)).load()
    stored = [(tmp_path / "pictures" / sample.image).read_bytes() for sample in result.samples]
    assert stored == [png(5 - number) for number in range(4)]
    assert len(list((tmp_path / "pictures").iterdir())) == 4
    pictures = next(cache.rglob("val_balanced_images/*.parquet"))
    some = [{"bytes": png(1), "path": None}, {"bytes": b"no", "path": None}]
    entries: dict[str, Sequence[object]] = {"id": ["n0", "n1"], "image": some}
    write_parquet(pictures, entries)
    result = open_source(options(tmp_path, gqa.id, max_rows=4)).load()
    assert [sample.source.index for sample in result.samples] == [0]
    reasons = [found.reason for found in result.quarantine]
    assert "not a picture" in reasons[0]
    assert reasons[1:] == ["the picture table has no picture 'n2'", "the picture table has no picture 'n3'"]


def test_the_context_of_a_question_is_put_before_it(cache: Path, tmp_path: Path) -> None:
    science = next(dataset for dataset in MIXTURE if dataset.id.endswith("ScienceQA"))
    cache_known(cache, science)
    first, second, *_ = open_source(options(tmp_path, science.id)).load().samples
    assert first.prompt.startswith("Context: Foxes are red.\nWhat is number 0?\nA. dog")
    assert second.prompt.startswith("What is number 1?\nA. dog")


def test_an_unknown_data_set_is_read_by_its_own_description(cache: Path, tmp_path: Path) -> None:
    snapshot = cached_repository(cache, "acme/toy")
    write_parquet(snapshot / "big" / "test-0.parquet", table_columns(4))
    write_parquet(snapshot / "big" / "validation-0.parquet", table_columns(3))
    write_parquet(snapshot / "odd" / "one.parquet", table_columns(2))
    (snapshot / "README.md").write_text(
        "---\nconfigs:\n- config_name: big\n  data_files:\n  - split: test\n    path: big/test-*\n"
        "  - split: validation\n    path: big/validation-*\n- config_name: odd\n  data_files:\n"
        "  - split: left\n    path: odd/*\n  - split: right\n    path: odd/*\n---\n"
    )
    chosen = open_source(options(tmp_path, "acme/toy:big")).load()
    assert chosen.datasets == [
        {"name": "acme/toy:big", "revision": COMMIT, "split": "validation", "samples": 3}
    ]
    assert len(open_source(options(tmp_path, f"acme/toy:big@test#{COMMIT}")).load().samples) == 4
    for data, reason in [
        ("acme/toy", "big.*odd.*acme/toy:CONFIG@SPLIT"),
        ("acme/toy:none@test", "big.*odd"),
        ("acme/toy:big@train", "acme/toy:CONFIG@SPLIT"),
        ("acme/toy:odd", "say which split with acme/toy@SPLIT; it has left, right"),
    ]:
        with pytest.raises(UsageError, match=f"(?s){reason}"):
            open_source(options(tmp_path, data)).load()


def test_the_user_can_overrule_what_is_known(cache: Path, tmp_path: Path) -> None:
    pope = next(dataset for dataset in OTHERS if dataset.id.endswith("POPE"))
    cache_known(cache, pope)
    asked = options(tmp_path, pope.id, scorer="contains@1", columns={"prompt": "answer"})
    first = open_source(asked).load().samples[0]
    assert (first.scorer, first.prompt) == ("contains@1", "yes" + SHORT_ANSWER)
