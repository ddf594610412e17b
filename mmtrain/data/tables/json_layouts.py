"""Well-known forms of JSON that are no list of rows, as rows: COCO, dicts of rows, and what pandas writes."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmtrain.data.tables.table_error import TableError
from mmtrain.data.tables.tables import split_name

COCO = "_annotations.coco.json"  # what Roboflow calls the table in the folder of a split
_MIN_ROWS = 2  # of a dict of rows: one object alone can be anything
_READ = ("image_id", "id", "caption", "category_id")  # of annotations


class Rows(NamedTuple):
    """Rows, and what a person should know of them."""

    rows: list[dict[str, Any]]
    notes: list[str]


def rows_of_layout(content: Any, path: Path) -> Rows | None:
    """The rows of a parsed file; None for one of another form.

    Args:
        content: of the file.
        path: of the file, for messages.

    Raises:
        TableError: for a file whose rows need another file, with the option that reads both.
    """
    if not isinstance(content, Mapping) or not content:
        return None
    _refuse_vqa(content, path)
    if is_list_of_objects(content.get("images")) and is_list_of_objects(content.get("annotations")):
        return _rows_of_coco(content, path)
    if _is_of_pandas(content):
        rows = [dict(zip(content["columns"], cells, strict=True)) for cells in content["data"]]
        return Rows(rows, [])
    tables = [name for name, part in content.items() if is_list_of_objects(part)]
    if len(tables) == len(content) and all(split_name(name) for name in tables):
        return Rows([{**row, "split": name} for name in tables for row in content[name]], [])
    lists = [name for name, part in content.items() if isinstance(part, list) and part and name not in tables]
    if len(tables) == 1 and not lists:
        others = [name for name in content if name not in tables]
        notes = [f"{path}: the rows are those of {tables[0]!r}; not read: {', '.join(others)}"] if others else []
        return Rows(content[tables[0]], notes)
    return _rows_of_dict(content)


def is_list_of_objects(part: Any) -> bool:
    """Whether it is a table as a list of rows."""
    return isinstance(part, list) and bool(part) and all(isinstance(row, dict) for row in part)


def _refuse_vqa(content: Mapping[str, Any], path: Path) -> None:
    """Questions of VQA are in one file and their answers in another.

    Raises:
        TableError: for either.
    """
    for name, keys in (("questions", {"question_id", "image_id"}), ("annotations", {"question_id", "answers"})):
        rows = content.get(name)
        if is_list_of_objects(rows) and keys <= rows[0].keys():  # type: ignore[index]
            raise TableError(
                f"it holds the {name} of VQAv2, whose questions and answers are in two files",
                f"read both by data=vqav2 data.root={path.absolute().parent}, the folder with both and the images",
            )


def _rows_of_coco(content: Mapping[str, Any], path: Path) -> Rows | None:
    """A row for each image, with its captions, or with the names of its categories."""
    annotations: list[Mapping[str, Any]] = content["annotations"]
    images: list[Mapping[str, Any]] = content["images"]
    if not all("id" in image and "file_name" in image for image in images):
        return None
    if not all("image_id" in annotation for annotation in annotations):
        return None
    names = {one.get("id"): str(one.get("name")) for one in content.get("categories") or () if isinstance(one, Mapping)}
    captions: dict[Any, list[Any]] = defaultdict(list)
    classes: dict[Any, dict[str, None]] = defaultdict(dict)
    for annotation in annotations:
        if annotation.get("caption") is not None:
            captions[annotation["image_id"]].append(annotation["caption"])
        if annotation.get("category_id") in names:
            classes[annotation["image_id"]][names[annotation["category_id"]]] = None
    is_one = all(len(result) < 2 for result in classes.values())
    rows = []
    for image in images:
        row = {"id": str(image["id"]), "file_name": image["file_name"]}
        if captions:
            row["caption"] = captions.get(image["id"]) or None
        if classes:
            results = list(classes.get(image["id"], ()))
            row["label" if is_one else "labels"] = (results[0] if is_one else results) if results else None
        rows.append(row)
    known = {image["id"] for image in images}
    lost = sum(annotation["image_id"] not in known for annotation in annotations)
    unread = [key for key in annotations[0] if key not in _READ]
    what = "captions" if captions else "the category" if is_one else "the categories"
    notes = [f"{path}: COCO annotations: a row for each image, with {what} of it"]
    notes += [f"{path}: not read of the annotations: {', '.join(unread)}"] if unread else []
    notes += [f"{path}: {lost:,} annotations are of images that the file does not list"] if lost else []
    return Rows(rows, notes)


def _is_of_pandas(content: Mapping[str, Any]) -> bool:
    """Whether it is DataFrame.to_json(orient="split")."""
    columns, data = content.get("columns"), content.get("data")
    return (
        {*content} <= {"columns", "index", "data"}
        and isinstance(columns, list)
        and all(isinstance(name, str) for name in columns)
        and isinstance(data, list)
        and all(isinstance(cells, list) and len(cells) == len(columns) for cells in data)
    )


def _rows_of_dict(content: Mapping[str, Any]) -> Rows | None:
    """An object of rows by id; or of columns, whose cells are by number, as pandas writes them."""
    parts: Sequence[Any] = list(content.values())
    if not all(isinstance(part, dict) and part for part in parts):
        return None
    numbers = parts[0].keys()
    if all(number.isdecimal() for number in numbers) and all(part.keys() == numbers for part in parts):
        return Rows([{name: part[number] for name, part in content.items()} for number in numbers], [])
    shared = set.intersection(*(set(part) for part in parts))
    if len(parts) < _MIN_ROWS or not shared:
        return None
    return Rows([part if "id" in part else {"id": id, **part} for id, part in content.items()], [])
