"""Names of classes and templates for zero-shot classification, from files of this project or of the user.

A file of class names is YAML: a list of names, whose order is that of integer labels, or a mapping from the labels of
a table or the names of folders to names. A .txt file has one name per line. A file of templates is a list of sentences,
each with one {} in place of the name.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from mmtrain.errors import ConfigError

_HERE = Path(__file__).parent
NAMES = _HERE / "class_names"
TEMPLATES = _HERE / "templates"


def load_templates(given: str | Sequence[str]) -> list[str]:
    """Return templates: a list of them as it is, or those of a file or of a set of this project, such as "objects".

    Raises:
        ConfigError: if there is no such file or set, or it is no list of sentences.
    """
    if not isinstance(given, str):
        return [str(template) for template in given]
    content = _read(given, TEMPLATES, "test.templates")
    if not isinstance(content, list) or not all(isinstance(template, str) for template in content):
        raise ConfigError(
            f"test.templates={given}: not a list of sentences\n    fix: write one '- a photo of a {{}}' per line"
        )
    return content


def load_class_names(given: str | Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    """Return the name of each class by its label, in order. In a list, labels are the names themselves.

    Raises:
        ConfigError: if there is no such file or set, a name is given twice, or there are fewer than two.
    """
    content = _read(given, NAMES, "test.class_names") if isinstance(given, str) else given
    if isinstance(content, Mapping):
        names = {str(label): str(name) for label, name in content.items()}
    elif isinstance(content, Sequence) and not isinstance(content, str):
        names = {str(name): str(name) for name in content}
    else:
        raise ConfigError(
            f"test.class_names={given}: neither a list of names nor label: name\n    fix: one name per line"
        )
    count = len(content)
    if len(names) < count or len(names) < 2:
        what = "a name is listed twice" if len(names) < count else f"{count} names"
        raise ConfigError(f"test.class_names={given}: {what}\n    fix: list two or more different names")
    return names


def match_labels(labels: Iterable[str], names: Mapping[str, str]) -> dict[str, int]:
    """Return the index of the class of each label.

    A label is the one of the file, or a name in another spelling ("Golden_retriever"), or the position of the name.

    Args:
        labels: values of a column, or names of folders.
        names: result of `load_class_names`.

    Raises:
        ConfigError: for labels that belong to no class.
    """
    positions = {label: number for number, label in enumerate(names)}
    spelled = {_folded(text): number for number, pair in enumerate(names.items()) for text in pair}
    found: dict[str, int] = {}
    unknown = []
    for label in labels:
        number = positions.get(label, spelled.get(_folded(label)))
        if number is None and label.isdecimal() and int(label) < len(names):
            number = int(label)
        if number is None:
            unknown.append(label)
        else:
            found[label] = number
    if unknown:
        raise ConfigError(
            f"test.class_names: {len(unknown)} labels are not among the {len(names)} names, such as {unknown[0]!r}\n"
            f"    fix: add them to the file, as '{unknown[0]}: its name'"
        )
    return found


def as_words(label: str) -> str:
    """Return a label as words, for a sentence.

    >>> as_words("golden_retriever")
    'golden retriever'
    """
    return " ".join(label.replace("_", " ").split())


def _folded(text: str) -> str:
    return as_words(text.replace("-", " ").replace("'", "")).lower()


def _read(given: str, folder: Path, key: str) -> Any:
    path = folder / f"{given}.yaml"
    if not path.is_file():
        path = Path(given).expanduser()
    if not path.is_file():
        sets = ", ".join(sorted(file.stem for file in folder.glob("*.yaml")))
        raise ConfigError(
            f"{key}={given}: no such file, and no set of this project\n    fix: name a file, or one of {sets}"
        )
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".txt":
            return [line.strip() for line in text.splitlines() if line.strip()]
        return yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{key}={given}: cannot be read: {reason}\n    fix: correct the file") from error
