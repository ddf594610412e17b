"""Media in the contents of turns: lists of parts, as transformers, Qwen and the OpenAI API write them, or words."""

import base64
import re
from collections.abc import Mapping
from typing import Any

from mmtrain.data.tables.columns import is_empty
from mmtrain.errors import SampleError

# The modality of a part, by its type
PART_MEDIA: Mapping[str, str] = {
    "image": "image",
    "image_url": "image",
    "input_image": "image",
    "audio": "audio",
    "audio_url": "audio",
    "input_audio": "audio",
    "video": "video",
    "video_url": "video",
}
PART_TEXTS = ("text", "input_text", "output_text")
PICTURE_IN_WORDS = re.compile(r"<img>(.*?)</img>", re.DOTALL)  # as Qwen-VL writes dialogues
_DATA_URL = re.compile(r"data:[\w.+/-]*(?:;[\w=.-]+)*;base64,")


def text_of_part(part: Any) -> str:
    """The text of a part; of a medium its mark, such as <image>.

    Raises:
        SampleError: when it is no part of a content.
    """
    if isinstance(part, str):
        return part
    kind = _kind_of(part)
    if kind is None:
        raise SampleError(str(part)[:40], 'is no part of a content, such as {"type": "text", "text": "..."}')
    if kind in PART_TEXTS:
        return "" if part.get("text") is None else str(part["text"])
    if kind not in PART_MEDIA and any(not is_empty(part[key]) for key in part if key != "type"):
        # such as a refusal or a thought: its mark would be learned in place of its words
        raise SampleError(f"a part of type {kind!r}", f"is none of {', '.join([*PART_TEXTS, *PART_MEDIA])}")
    return f"<{PART_MEDIA.get(kind, kind)}>"


def _kind_of(part: Any) -> str | None:
    """The type of a part. One without a type has it as its only key, as {"image": "a.png"} of Qwen."""
    if not isinstance(part, Mapping):
        return None
    if isinstance(part.get("type"), str):
        return str(part["type"])
    results = [key for key in part if not is_empty(part[key])] or [key for key in part if key in PART_TEXTS]
    return results[0] if len(results) == 1 and results[0] in (*PART_TEXTS, *PART_MEDIA) else None


def media_of_parts(turn: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The media in the content of a turn, each with its modality.

    >>> media_of_parts({"content": [{"type": "image_url", "image_url": {"url": "a.png"}}, {"type": "image"}]})
    [('image', 'a.png')]
    >>> media_of_parts({"from": "user", "value": "Picture 1: <img>a.png</img>"})
    [('image', 'a.png')]
    """
    content = turn.get("value") if turn.get("content") is None else turn["content"]
    if isinstance(content, str):
        return [("image", path.strip()) for path in PICTURE_IN_WORDS.findall(content) if path.strip()]
    parts = content if isinstance(content, list | tuple) else []
    kinds = [(part, kind) for part in parts if (kind := _kind_of(part)) is not None and kind in PART_MEDIA]
    results = [(PART_MEDIA[kind], _file_of(part, kind)) for part, kind in kinds]
    return [(modality, file) for modality, file in results if not is_empty(file)]


def is_medium(part: Any) -> bool:
    """Whether a part of a content is a picture, a sound or a film."""
    return _kind_of(part) in PART_MEDIA


def _file_of(part: Mapping[str, Any], kind: str) -> Any:
    """A path, or the {"bytes", "path"} of a file that is in the part itself."""
    keys = (kind, PART_MEDIA[kind], "source", "path", "url")  # source of Anthropic
    file = next((part[key] for key in keys if not is_empty(part.get(key))), None)
    if isinstance(file, Mapping) and not {"bytes", "path"} <= file.keys():
        if isinstance(file.get("data"), str):
            return _decoded(file["data"], file["data"][:40])
        file = next((file[key] for key in ("url", "path", "file_id") if not is_empty(file.get(key))), None)
    if isinstance(file, str) and (data := _DATA_URL.match(file)) is not None:
        return _decoded(file[data.end() :], file[:40])
    return file.removeprefix("file://") if isinstance(file, str) else file


def _decoded(data: str, name: str) -> Any:
    """The file that a part contains as base64; the name of no file if it is damaged."""
    try:
        return {"bytes": base64.b64decode("".join(data.split()), validate=True), "path": None}
    except ValueError:
        return name  # its row is set aside
