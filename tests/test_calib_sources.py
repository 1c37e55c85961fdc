"""Sources: what each kind keeps, how `--data` chooses one, and JSONL files with everything wrong in them."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from calib_data import (
    cache_known,
    cached_repository,
    hub_cache,
    keep_locks_in,
    options,
    png,
    row,
    table_columns,
    write_jsonl,
    write_parquet,
)
from house import ROOT

from claspkit.calib import data_jsonl
from claspkit.calib.data_mixture import MIXTURE
from claspkit.calib.images import check_image
from claspkit.calib.samples import Sample
from claspkit.calib.sources import (
    SOURCES,
    Limits,
    SourceOptions,
    is_mini,
    open_source,
    parse_columns,
    source_name,
)
from claspkit.profiles.errors import BadDataError, ClaspError, UsageError
from claspkit.profiles.intents import INTENT_IDS

Maker = Callable[[Path, pytest.MonkeyPatch], SourceOptions]


def _jsonl(folder: Path, monkeypatch: pytest.MonkeyPatch) -> SourceOptions:
    return options(folder, write_jsonl(folder / "own", [row(number) for number in range(9)]))


def _parquet(folder: Path, monkeypatch: pytest.MonkeyPatch) -> SourceOptions:
    return options(folder, write_parquet(folder / "own" / "t.parquet", table_columns(9)))


def _hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> SourceOptions:
    snapshot = cached_repository(hub_cache(monkeypatch, folder / "cache"), "acme/toy")
    write_parquet(snapshot / "data" / "train-0.parquet", table_columns(9))
    return options(folder, "acme/toy")


def _mini(folder: Path, monkeypatch: pytest.MonkeyPatch) -> SourceOptions:
    return options(folder, None, model_name="mini", per_class=2)


def _mixture(folder: Path, monkeypatch: pytest.MonkeyPatch) -> SourceOptions:
    cache = hub_cache(monkeypatch, folder / "cache")
    for dataset in MIXTURE:
        cache_known(cache, dataset)
    return options(folder)


MAKERS: dict[str, Maker] = {
    "jsonl": _jsonl,
    "parquet": _parquet,
    "hub": _hub,
    "mini": _mini,
    "mixture": _mixture,
}


@pytest.fixture(autouse=True)
def _no_traces_at_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_locks_in(monkeypatch, tmp_path_factory)


def test_every_source_has_a_maker_here() -> None:
    assert MAKERS.keys() == SOURCES.keys()


@pytest.mark.parametrize("name", SOURCES)
class TestContract:
    """What every row of SOURCES keeps."""

    def test_is_chosen_and_documented(
        self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = MAKERS[name](tmp_path, monkeypatch)
        assert source_name(asked) == open_source(asked).name == name
        assert f"| `{name}` |" in (ROOT / "docs" / "data.md").read_text(encoding="utf-8")

    def test_samples_are_whole_and_the_same_again(
        self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = MAKERS[name](tmp_path, monkeypatch)
        result = open_source(asked).load()
        assert len(result.samples) >= 9
        assert result.quarantine == []
        assert len({sample.uid for sample in result.samples}) == len(result.samples)
        for sample in result.samples:
            found = check_image(sample.image, asked.sample_root)
            assert (found.path, found.sha256) == (sample.image, sample.image_sha256)
            assert Sample.from_dict(json.loads(json.dumps(sample.to_dict()))) == sample
            assert str(tmp_path) not in json.dumps(sample.to_dict())
        before = sorted(path.stat().st_mtime_ns for path in tmp_path.rglob("*.png"))
        assert open_source(asked).load() == result
        assert sorted(path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")) == before

    def test_the_record_of_the_data_sets_adds_up(
        self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        result = open_source(MAKERS[name](tmp_path, monkeypatch)).load()
        counted = Counter(sample.source.dataset for sample in result.samples)
        assert counted == {record["name"]: record["samples"] for record in result.datasets}
        for record in result.datasets:
            assert record.keys() == {"name", "revision", "split", "samples"}
            assert isinstance(record["revision"], str)
        json.dumps(result.datasets, allow_nan=False)

    def test_a_limit_takes_the_first_rows_of_each_data_set(
        self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = MAKERS[name](tmp_path, monkeypatch)
        everything, some = open_source(asked).load().samples, open_source(asked).load(Limits(2)).samples
        for dataset in {sample.source.dataset for sample in everything}:
            whole, part = (
                [s for s in samples if s.source.dataset == dataset] for samples in (everything, some)
            )
            assert part == whole[:2]

    def test_progress_is_told_once_per_data_set_at_least(
        self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        told: list[tuple[str, int]] = []
        asked = MAKERS[name](tmp_path, monkeypatch)
        result = open_source(asked).load(None, lambda dataset, rows: told.append((dataset, rows)))
        assert dict(told) == {record["name"]: record["samples"] for record in result.datasets}


@pytest.mark.parametrize(
    ("data", "model", "name"),
    [
        (None, "mini", "mini"),
        (None, "llava-1.5-7b", "mixture"),
        ("mini", "llava-1.5-7b", "mini"),
        ("mixture", "mini", "mixture"),
        ("x.jsonl", "mini", "jsonl"),
        ("some/where/x.JSONL", "mini", "jsonl"),
        ("x.parquet", "mini", "parquet"),
        ("lmms-lab/POPE", "mini", "hub"),
        ("lmms-lab/DocVQA:DocVQA@validation#abc", "mini", "hub"),
    ],
)
def test_data_says_which_source(data: str | None, model: str, name: str, tmp_path: Path) -> None:
    assert source_name(options(tmp_path, data, model_name=model)) == name


def test_a_folder_is_read_as_parquet_files(tmp_path: Path) -> None:
    assert source_name(options(tmp_path, tmp_path)) == "parquet"


@pytest.mark.parametrize(
    ("data", "error", "text"),
    [
        ("nothing", UsageError, "neither a file, nor a folder, nor a data set id"),
        ("a/b/c", BadDataError, "nothing is there"),
        ("../x", BadDataError, "nothing is there"),
        ("/no/such/place", BadDataError, "nothing is there"),
        ("list.json", UsageError, r"jq -c '\.\[\]' list\.json > list\.jsonl"),
        (str(ROOT / "pyproject.toml"), UsageError, r"must be \.jsonl or \.parquet"),
    ],
)
def test_what_means_nothing_is_answered_with_what_is_allowed(
    data: str, error: type[ClaspError], text: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=text):
        open_source(options(tmp_path, data))


def test_the_folder_of_the_embedded_model_means_mini(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("claspkit.mini.MODEL_DIR", tmp_path / "model", raising=False)
    assert is_mini("mini")
    assert is_mini(str(tmp_path / "." / "model"))
    assert not is_mini(str(tmp_path))
    assert not is_mini("minimal")


def test_columns_are_read_from_the_command_line() -> None:
    assert parse_columns("image=photo, answers = gold") == {"image": "photo", "answers": "gold"}
    for text in ("photo", "image=", "picture=x", "image=a,image=b", ""):
        with pytest.raises(UsageError, match="the roles are image, prompt, answers, choices"):
            parse_columns(text)


@pytest.mark.parametrize("rows", [0, -1])
def test_a_limit_below_one_is_refused(rows: int, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least 1 row"):
        open_source(options(tmp_path, "mini", max_rows=rows)).load()


def test_every_public_data_set_is_documented() -> None:
    text = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    for dataset in MIXTURE:
        cells = f"| `{dataset.id}` | {dataset.config or ''}"
        line = next(line for line in text.splitlines() if line.startswith(cells))
        assert f"| {dataset.split} | `{dataset.scorer}` | {', '.join(dataset.intents)} |" in line
    assert {intent for dataset in MIXTURE for intent in dataset.intents} == set(INTENT_IDS)


def test_mini_gives_each_intent_its_number_and_keeps_it_when_asked_for_more(tmp_path: Path) -> None:
    few = open_source(options(tmp_path, "mini", per_class=3)).load()
    more = open_source(options(tmp_path, "mini", per_class=7)).load()
    assert min(Counter(sample.intent_hint for sample in few.samples).values()) >= 3
    assert {sample.intent_hint for sample in few.samples} == set(INTENT_IDS)
    assert more.samples[: len(few.samples)] == few.samples
    other = open_source(options(tmp_path, "mini", per_class=3, seed=1)).load()
    assert {s.image_sha256 for s in other.samples}.isdisjoint({s.image_sha256 for s in more.samples})


def test_mini_never_asks_about_pictures_the_model_was_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from claspkit.mini import samples as generator

    seeds: list[int] = []
    real = generator.generate_samples

    def watched(count: int, seed: int) -> Iterator[generator.MiniSample]:
        seeds.append(seed)
        return real(count, seed)

    monkeypatch.setattr(generator, "generate_samples", watched)
    for seed in (0, 999):
        open_source(options(tmp_path, "mini", per_class=1, seed=seed)).load()
    known = {generator.VALIDATION_SEED, generator.HELD_OUT_SEED, *generator.TRAINING_SEEDS}
    assert known.isdisjoint(seeds)
    with pytest.raises(UsageError, match="seed from 0"):
        open_source(options(tmp_path, "mini", seed=-1))


LLAVA = {
    "id": "7",
    "image": "1.png",
    "conversations": [
        {"from": "human", "value": "<image>\nWhat is it?"},
        {"from": "gpt", "value": "a cat"},
        {"from": "human", "value": "Why?"},
        {"from": "gpt", "value": "it purrs"},
    ],
}
FULL = row(2, choices=["thing 2", "nothing"], intent="object", scorer="contains@1", extra=[1, {}])


def test_every_form_of_row_becomes_the_sample_it_means(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path, [row(), "", FULL, LLAVA, row(3, answers=["x", "y"]) | {"answer": "z"}])
    result = open_source(options(tmp_path, path)).load()
    plain, full, llava = result.samples
    assert (plain.prompt, plain.answers, plain.scorer) == ("What is number 0?", ("thing 0",), "exact_match@1")
    assert (full.choices, full.scorer, full.intent_hint) == (("thing 2", "nothing"), "contains@1", "object")
    assert (llava.prompt, llava.answers, llava.image) == ("What is it?", ("a cat",), "1.png")
    assert [sample.source.index for sample in result.samples] == [1, 3, 4]
    assert [(q.where, q.reason) for q in result.quarantine] == [
        ("data.jsonl:5", "answer and answers are both given; keep one")
    ]


BAD_ROWS: dict[str, tuple[object, str]] = {
    "no json": ("{image: 1}", "not JSON"),
    "a list": ("[1, 2]", "one JSON object is needed, not [1, 2]"),
    "a number": ("7", "one JSON object is needed"),
    "nan": ('{"image": "0.png", "prompt": "x", "answer": "y", "z": NaN}', "NaN is no JSON number"),
    "infinity": ('{"image": "0.png", "prompt": "x", "answer": "y", "z": 1e999}', "too large"),
    "key twice": ('{"image": "0.png", "image": "1.png", "prompt": "x", "answer": "y"}', "appears twice"),
    "deep": ('{"z": ' + "[" * 500 + "]" * 500 + "}", "nested deeper"),
    "not utf-8": (b'{"image": "\xff"}', "not UTF-8"),
    "surrogate": ('{"image": "0.png", "prompt": "\\ud800", "answer": "y"}', "surrogate"),
    "null bytes": (b"\x00" * 50, "not JSON"),
    "no image": ({"prompt": "x", "answer": "y"}, "image is missing; the row has ['answer', 'prompt']"),
    "no prompt": ({"image": "0.png", "answer": "y"}, "prompt is missing"),
    "no answer": ({"image": "0.png", "prompt": "x"}, "answers (or answer) is missing"),
    "image number": (row(image=3), "image must be a path, not 3"),
    "image list": (row(image=["0.png"]), "image must be a path"),
    "blank prompt": (row(prompt=" "), "prompt is empty"),
    "answer number": (row(answer=3), "an answer must be text, not 3"),
    "answers text": ({"image": "0.png", "prompt": "x", "answers": "y"}, "answers must be a list of texts"),
    "choices": (row(choices=["a", "b"]), "should name one of the choices"),
    "scorer": (row(scorer="best@1"), "scorer 'best@1' is none of"),
    "intent": (row(intent="for fun"), "intent 'for fun' is no id"),
    "outside": (row(image="../secret.png"), "outside the image root"),
    "link": (row(image="link.png"), "outside the image root"),
    "missing file": (row(image="9.png"), "picture '9.png': no such file"),
    "cut picture": (row(image="cut.png"), "damaged or cut short"),
    "no picture": (row(image="data.jsonl"), "not a picture"),
    "too long": ('{"image": "' + "x" * 2**20 + '"}', "longer than 1048576 bytes"),
    "no turns": ({"image": "0.png", "conversations": []}, "must start with two turns"),
    "wrong order": (LLAVA | {"conversations": LLAVA["conversations"][1:3]}, "human, then gpt"),
    "no picture in talk": ({"conversations": LLAVA["conversations"]}, "the conversation has no image"),
}


def test_every_bad_row_is_quarantined_with_its_line_and_the_load_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    rows: list[object] = [entry for bad, _ in BAD_ROWS.values() for entry in (bad, row())]
    path = write_jsonl(folder, rows)
    (tmp_path / "secret.png").write_bytes(png(9))
    (folder / "link.png").symlink_to("../secret.png")
    (folder / "cut.png").write_bytes(png(9, (99, 99))[:-40])
    result = open_source(options(tmp_path, path)).load()
    assert [sample.source.index for sample in result.samples] == list(range(2, len(rows) + 1, 2))
    assert len(result.quarantine) == len(BAD_ROWS)
    for number, (found, (_, reason)) in enumerate(zip(result.quarantine, BAD_ROWS.values(), strict=True)):
        assert found.where == f"data.jsonl:{2 * number + 1}"
        assert reason in found.reason
        assert len(found.reason) < 400


def test_a_last_line_cut_short_is_quarantined_at_every_byte(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path, [row(), row(1)])
    whole = path.read_bytes()
    second = whole.index(b"\n") + 1
    for length in range(second + 1, len(whole) - 1):
        path.write_bytes(whole[:length])
        result = open_source(options(tmp_path, path)).load()
        assert [sample.source.index for sample in result.samples] == [1]
        assert result.quarantine[0].where == "data.jsonl:2"
        assert result.quarantine[0].reason.endswith("(the file ends within this line)")
    path.write_bytes(whole[:-1])
    assert len(open_source(options(tmp_path, path)).load().samples) == 2


def test_a_long_line_costs_no_memory_and_ends_where_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_jsonl, "MAX_LINE_BYTES", 100)
    path = write_jsonl(tmp_path, ["x" * 1000, row(), "x" * 99, "x" * 100, "x" * 101, row(1), "x" * 350])
    result = open_source(options(tmp_path, path)).load()
    assert [sample.source.index for sample in result.samples] == [2, 6]
    assert [q.where.split(":")[1] for q in result.quarantine] == ["1", "3", "4", "5", "7"]


def test_a_byte_order_mark_and_windows_lines_do_no_harm(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path, [row(), row(1)])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert len(open_source(options(tmp_path, path)).load().samples) == 2


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "there is no such file"),
        (b"", "the file is empty"),
        (b"\n\n", "data.jsonl holds no rows"),
        (b"{}\n" * 9, "none of its 9 rows can be used\n  data.jsonl:1: image is missing.*and 4 more"),
    ],
)
def test_a_file_without_a_usable_row_is_bad_data(content: bytes | None, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadDataError, match=f"(?s){reason}"):
        open_source(options(tmp_path, path)).load()


def test_the_image_root_can_be_elsewhere(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "pictures", [])
    path = write_jsonl(tmp_path / "text", [row()])
    asked = options(tmp_path, path, image_root=tmp_path / "pictures")
    assert open_source(asked).load().samples[0].image == "0.png"
    assert asked.sample_root == tmp_path / "pictures"
    with pytest.raises(BadDataError, match="--image-root"):
        open_source(options(tmp_path, path, image_root=tmp_path / "none")).load()


def test_rows_added_at_the_end_change_nothing_before(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path, [row(), row(1)])
    before = open_source(options(tmp_path, path)).load()
    write_jsonl(tmp_path, [row(), row(1), row(2)])
    after = open_source(options(tmp_path, path)).load()
    assert after.samples[:2] == before.samples
    assert after.datasets[0]["revision"] != before.datasets[0]["revision"]


def test_a_limit_counts_usable_rows_and_gives_up_on_a_hopeless_file(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path, ["{}", row(), "{}", row(1), row(2)])
    result = open_source(options(tmp_path, path, max_rows=2)).load()
    assert [sample.source.index for sample in result.samples] == [2, 4]
    assert len(result.quarantine) == 2
    hopeless = write_jsonl(tmp_path, [row(), *["{}"] * 1500, row(1)])
    assert len(open_source(options(tmp_path, hopeless, max_rows=5)).load().quarantine) == 1006
