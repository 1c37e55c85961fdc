"""The file of an evaluation's answers: what is no such file, and what cannot be one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

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
