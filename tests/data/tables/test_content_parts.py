"""Parts of the contents of turns: the words and media that they hold, and nothing else."""

import base64
from typing import Any

import pytest

from mmtrain.data.tables.content_parts import media_of_parts, text_of_part
from mmtrain.errors import SampleError


@pytest.mark.parametrize(
    ("part", "text"),
    [
        ("a", "a"),
        ({"type": "text", "text": "a"}, "a"),
        ({"type": "text", "text": None}, ""),
        ({"type": "text"}, ""),
        ({"text": "a"}, "a"),
        ({"text": "a", "image": None}, "a"),
        ({"text": ""}, ""),
        ({"image": "a.png"}, "<image>"),
        ({"image": "a.png", "text": None}, "<image>"),
        ({"type": "depth"}, "<depth>"),  # an input of the user's own
        ({"type": "depth", "text": None}, "<depth>"),
    ],
)
def test_the_text_of_a_part(part: Any, text: str) -> None:
    assert text_of_part(part) == text


@pytest.mark.parametrize(
    "part",
    [
        {"type": "refusal", "refusal": "no"},
        {"type": "thinking", "thinking": "hm"},
        {"type": "tool_result", "content": "4"},
        {"image": "a.png", "text": "both"},
        {"words": "a"},
        {},
        7,
        None,
    ],
)
def test_what_is_neither_text_nor_a_medium_is_refused(part: Any) -> None:
    with pytest.raises(SampleError, match=r"is no part of a content|is none of text, "):
        text_of_part(part)


def test_media_of_parts_without_a_type() -> None:
    parts = [{"image": "a.png"}, {"text": "and"}, {"video": "b.mp4", "image": None}]
    assert media_of_parts({"content": parts}) == [("image", "a.png"), ("video", "b.mp4")]


DATA = base64.b64encode(b"picture").decode()
FILE = {"bytes": b"picture", "path": None}


@pytest.mark.parametrize(
    ("part", "medium"),
    [
        ({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": DATA}}, ("image", FILE)),
        ({"type": "image", "source": {"type": "url", "url": "a.png"}}, ("image", "a.png")),
        ({"type": "image", "source": {"type": "url", "url": f"data:image/png;base64,{DATA}"}}, ("image", FILE)),
        ({"type": "image", "source": {"type": "base64", "data": "no base64!"}}, ("image", "no base64!")),
        ({"type": "image", "source": {"type": "file", "file_id": "file_1"}}, ("image", "file_1")),
        ({"type": "input_audio", "input_audio": {"data": DATA, "format": "wav"}}, ("audio", FILE)),
        ({"type": "image", "source": None, "image": None}, None),
    ],
)
def test_media_in_the_forms_of_anthropic_and_openai(part: Any, medium: Any) -> None:
    assert media_of_parts({"role": "user", "content": [part]}) == ([] if medium is None else [medium])
    assert text_of_part(part) == f"<{'image' if medium is None else medium[0]}>"
