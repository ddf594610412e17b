"""VQAv2 with the pictures of 2014 or of 2017."""

from pathlib import Path

import pytest

from mmtrain.data.sources.public.vqav2 import vqav2
from mmtrain.errors import ConfigError
from tests.data.sources.public.parts import files_are_there, picture, rows_of, write

GIVEN = ["yes"] * 7 + ["no"] * 3


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    for part, number in (("train2014", 9), ("val2014", 4)):
        requested = {"image_id": number, "question": "Is it a dog?", "question_id": number * 1000}
        answers = [{"answer": a, "answer_confidence": "yes", "answer_id": n} for n, a in enumerate(GIVEN, start=1)]
        about = {"question_type": "is it", "answer_type": "yes/no", "multiple_choice_answer": "yes"}
        annotation = {"question_id": number * 1000, "image_id": number, "answers": answers, **about}
        write(tmp_path / f"v2_OpenEnded_mscoco_{part}_questions.json", {"questions": [requested]})
        write(tmp_path / f"v2_mscoco_{part}_annotations.json", {"annotations": [annotation]})
    return tmp_path


def test_questions_have_ten_answers_and_their_picture(questions: Path) -> None:
    picture(questions / "train2014/COCO_train2014_000000000009.jpg")
    picture(questions / "val2014/COCO_val2014_000000000004.jpg")
    tables = vqav2(root=questions, test=None)
    assert rows_of(tables)["train"] == [
        {
            "id": "9000",
            "image": "train2014/COCO_train2014_000000000009.jpg",
            "question": "Is it a dog?",
            "answers": GIVEN,
            "question_type": "is it",
            "answer_type": "yes/no",
        }
    ]
    assert list(tables.splits) == ["train", "val"]
    assert files_are_there(tables, "image")


def test_the_pictures_of_2017_and_the_test_without_answers(questions: Path) -> None:
    picture(questions / "train2017/000000000009.jpg")
    picture(questions / "val2017/000000000004.jpg")
    picture(questions / "test2015/COCO_test2015_000000000003.jpg")
    requested = {"image_id": 3, "question": "Why?", "question_id": 3000}
    write(questions / "questions/v2_OpenEnded_mscoco_test-dev2015_questions.json", {"questions": [requested]})
    tables = vqav2(root=questions, test="test-dev2015")
    assert files_are_there(tables, "image")
    assert rows_of(tables)["test"][0]["answers"] == []
    with pytest.raises(ConfigError, match=r"has no v2_OpenEnded_mscoco_test2015_questions\.json"):
        vqav2(root=questions, test="test2015")
    with pytest.raises(ConfigError, match="set it to test2015 or test-dev2015, or to null"):
        vqav2(root=questions, test="val")


def test_missing_pictures_are_said(questions: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"has no train2014 \(nor train2017\)\n    fix: name a folder with v2_OpenEnded"
    ):
        vqav2(root=questions, test=None)
