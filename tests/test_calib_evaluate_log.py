"""The file of an evaluation's answers: what is no such file, and what cannot be one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from claspkit.calib.cli_evaluate import out_folder
from claspkit.calib.evaluate_log import AnswerLog
from claspkit.profiles.errors import CorruptError
from claspkit.profiles.records import RecordLog


@pytest.mark.parametrize(
    "said", [["a", "3", None], ["a", -1, None], ["a", True, None], ["a", 1, "b"], "a1b", [1, 2, 3]]
)
def test_an_answer_of_another_shape_is_damage(said: Any, tmp_path: Path) -> None:
    """Also under a right checksum."""
    with RecordLog(tmp_path / "answers.jsonl") as log:
        log.append([{"key": "k", "said": [said]}])
    with pytest.raises(CorruptError, match=r"answers\.jsonl: a line is not of an evaluation"):
        AnswerLog(tmp_path / "answers.jsonl")


def test_a_folder_of_the_files_name_is_refused(tmp_path: Path) -> None:
    """With a sentence, not a traceback."""
    (tmp_path / "answers.jsonl").mkdir()
    with pytest.raises(CorruptError, match=r"answers\.jsonl is no plain file"):
        AnswerLog(tmp_path / "answers.jsonl")


def test_results_that_cannot_be_replaced_are_told_before_anything_is_read(tmp_path: Path) -> None:
    """A folder of their name; where nothing stands, or an earlier evaluation's, the folder is taken."""
    assert out_folder(tmp_path / "new", "mini").is_dir()
    (tmp_path / "new" / "results.json").write_text("{}")
    assert out_folder(tmp_path / "new", "mini") == tmp_path / "new"
    (tmp_path / "results.json").mkdir()
    with pytest.raises(CorruptError, match=r"results\.json is no plain file"):
        out_folder(tmp_path, "mini")
