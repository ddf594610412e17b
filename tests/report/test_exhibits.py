"""Exhibits: thumbnails appear once, confusion matrices keep their sums."""

import base64
import io

import pytest
from PIL import Image

from mmtrain.report.exhibits import MAX_CLASSES, Album, Thumbnail, attention_panel, caption_table, grid, matrix
from mmtrain.types import AttentionMap, Caption, Captions, Confusion, Hit, Retrieval


def test_each_distinct_picture_is_kept_once_and_asked_for_once() -> None:
    requested = []

    def picture(id: str) -> Image.Image:
        requested.append(id)
        return Image.new("RGB", (300, 200), "red" if id == "c" else "blue")

    album = Album(picture=picture)
    assert album.take("a") == album.take("b") == album.take("a")
    assert album.take("c") != album.take("a")
    assert requested == ["a", "b", "c"]
    assert len(album.thumbnails) == 2
    assert len({thumbnail.name for thumbnail in album.thumbnails}) == 2


def test_a_thumbnail_keeps_its_proportions_and_leaves_the_picture_alone() -> None:
    original = Image.new("L", (300, 150))
    thumbnail = Album(picture=lambda id: original).take("a")
    assert thumbnail is not None
    assert thumbnail.width == 2 * thumbnail.height < 300
    assert original.size == (300, 150)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F"])
def test_every_mode_of_picture_becomes_a_thumbnail(mode: str) -> None:
    thumbnail = Album(picture=lambda id: Image.new(mode, (20, 20))).take("a")
    assert thumbnail is not None
    assert thumbnail.uri.startswith("data:image/")


def test_only_the_modality_that_was_compared_is_shown() -> None:
    red = Image.new("RGB", (8, 8), "red")
    album = Album(picture=lambda id: red)
    shown = grid(Retrieval("text", "audio", ["a"], [[Hit("b", 0.5, True)]]), album=album, text=lambda id: f"words {id}")
    ((query, answers),) = shown.rows
    assert query.words == "words a"
    assert query.picture is None
    assert answers[0].item.words is None
    assert answers[0].item.picture is None
    assert answers[0].item.id == "b"
    assert album.thumbnails == []


def test_a_class_without_rows_has_no_accuracy() -> None:
    shown = matrix(Confusion("t", ["a", "b"], [[3, 1], [0, 0]]))
    assert [row.accuracy for row in shown.rows] == [0.75, None]
    assert [cell.share for cell in shown.rows[1].cells] == [0.0, 0.0]
    assert [[cell.right for cell in row.cells] for row in shown.rows] == [[True, False], [False, True]]


def test_of_very_many_classes_those_with_most_mistakes_are_shown() -> None:
    num = MAX_CLASSES + 10
    counts = [[5 if i == j else 0 for j in range(num)] for i in range(num)]
    counts[num - 1][0] = 7
    shown = matrix(Confusion("t", [f"c{i}" for i in range(num)], counts))
    assert len(shown.rows) == MAX_CLASSES
    assert shown.num_left_out == 10
    assert all(len(row.cells) == len(shown.columns) for row in shown.rows)
    assert all(sum(cell.num_rows for cell in row.cells) == row.total for row in shown.rows)
    worst = next(row for row in shown.rows if row.name == f"c{num - 1}")
    assert worst.accuracy == 5 / 12
    assert (shown.num_right, shown.total) == (5 * num, 5 * num + 7)


def test_a_gaze_is_the_picture_and_each_word_over_it() -> None:
    pictures = {"a": Image.new("RGB", (40, 40), "white"), "b": None}
    album = Album(picture=pictures.get)
    look = AttentionMap("a", "text", ["red", "dog"], [[[0.5, 0.0], [0.0, 0.0]], [[0.25, 0.25], [0.25, 0.25]]])
    seen = attention_panel(look, album=album, text={"a": "a red dog"}.get)
    assert seen is not None
    assert (seen.id, seen.words, seen.query) == ("a", "a red dog", "text")
    assert [(word, share) for word, _, share in seen.maps] == [("red", 0.5), ("dog", 1.0)]
    red, even = (_pixels(picture) for _, picture, _ in seen.maps)
    corner, far = red.getpixel((4, 4)), red.getpixel((140, 140))
    assert corner[0] - corner[2] > 100 and abs(far[0] - far[2]) < 12  # red where it was read, grey where it was not
    one, other = even.getpixel((4, 4)), even.getpixel((140, 140))
    assert all(abs(x - y) < 12 for x, y in zip(one, other, strict=True))
    assert attention_panel(AttentionMap("b", "text", ["x"], [[[1.0]]]), album=album, text={}.get) is None


def _pixels(thumbnail: Thumbnail) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(thumbnail.uri.partition(",")[2]))).convert("RGB")


def test_a_sentence_stands_below_its_picture_and_says_whether_it_is_right() -> None:
    rows = [Caption("a", "a red cat", ["a red cat", "a cat"]), Caption("b", "", ["a dog"])]
    red = Image.new("RGB", (8, 8), "red")
    album = Album(picture=lambda id: red if id == "a" else None)
    shown = caption_table(Captions("caption", rows), album=album, text=lambda id: f"words {id}")
    assert [told.is_right for told in shown.rows] == [True, False]
    assert shown.rows[0].item.picture in album.thumbnails and shown.rows[0].item.words is None
    assert shown.rows[1].item.picture is None and shown.rows[1].item.words == "words b"
