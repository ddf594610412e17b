"""Questions about OpenMoji: what is it, which group, what skin tone; created from the names and groups of its tables.

Each question is a separate row, so no answer reveals another. Rows of an emoji and of its variants are in one split, as
in the original tables.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from mmtrain.annotations import Fraction, Size
from mmtrain.data.sources.caches import writing_cache
from mmtrain.data.sources.openmoji import prepare_openmoji
from mmtrain.io.run_files import write_json_lines

FORMAT = 1  # part of the folder's name: increase it when the rows change
QUESTIONS = {"name": "what is this?", "group": "which group is it in?", "tone": "what is the skin tone?"}


def prepare_questions(
    *, cache_dir: str | Path, size: Size, languages: Sequence[str], split: Mapping[str, Fraction]
) -> Path:
    """Draw OpenMoji and write its questions, unless they exist.

    A row is {"id": "1F44D-1F3FB-tone", "image": "../images/1F44D-1F3FB.png", "kind": "tone", "question": "what is the
    skin tone?", "answer": ["light"], "base": "1F44D"}. Questions about tones are only for emoji that can have one.

    Args:
        cache_dir: see `prepare_openmoji`, also for the other arguments.
        size: size of the drawings.
        languages: languages of the names; the first one is learned.
        split: the fraction of base emoji by split.

    Returns:
        The folder of the tables, inside that of the drawings.
    """
    drawings = prepare_openmoji(cache_dir=cache_dir, size=size, languages=languages, split=split)
    folder = drawings / f"questions-{FORMAT}"
    if all((folder / f"{name}.jsonl").is_file() for name in split):
        return folder
    with writing_cache(folder, "MMTRAIN_CACHE"), FileLock(drawings / ".questions.lock"):
        for name in split:
            rows = [json.loads(line) for line in (drawings / f"{name}.jsonl").read_bytes().splitlines()]
            if not (folder / f"{name}.jsonl").is_file():
                write_json_lines(folder / f"{name}.jsonl", questions_of(rows))
    return folder


def questions_of(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows of the questions, in the order of the emoji.

    >>> row = {"id": "A", "image": "images/A.png", "caption": ["hand: dark skin tone"], "label": "People", "base": "A"}
    >>> [(asked["kind"], asked["answer"]) for asked in questions_of([row])]
    [('name', ['hand: dark skin tone']), ('group', ['People']), ('tone', ['dark'])]
    """
    toned = {row["base"] for row in rows if _tones(row["caption"][0])}
    results = []
    for row in rows:
        answers = {"name": row["caption"], "group": [row["label"]] if "label" in row else []}
        if row["base"] in toned:
            answers["tone"] = [" and ".join(_tones(row["caption"][0])) or "none"]
        for kind, answer in answers.items():
            if answer:
                shared = {"id": f"{row['id']}-{kind}", "image": f"../{row['image']}", "kind": kind}
                results.append({**shared, "question": QUESTIONS[kind], "answer": answer, "base": row["base"]})
    return results


def _tones(name: str) -> list[str]:
    """Skin tones in a name, in order. A couple can have two.

    >>> _tones("kiss: woman man medium-light skin tone dark skin tone")
    ['medium-light', 'dark']
    """
    return re.findall(r"([\w-]+) skin tone", name)
