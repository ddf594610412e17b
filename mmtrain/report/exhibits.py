"""Prepares examples of tasks for the page: grids of retrieval results, confusion matrices, sentences and attention."""

import base64
import io
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from mmtrain.types import AttentionMap, Captions, Confusion, Hit, Retrieval

THUMBNAIL_SIZE = 144  # pixels; displayed at 96, for high-resolution screens
MAX_CLASSES = 30
OTHERS = "all others"
HEAT, HEAT_ALPHA, FULL = (214, 73, 28), 215, 4.0  # colour of attention, its opacity, multiple of uniform attention


class Thumbnail(NamedTuple):
    """A small image that is stored once in the page under `name`, and can be displayed several times."""

    name: str
    width: int
    height: int
    uri: str


class Album:
    """Thumbnails of a page, each distinct image once.

    Args:
        picture: returns the image of a row, or None if the row has none.
    """

    def __init__(self, *, picture: Callable[[str], Image.Image | None]) -> None:
        self._picture = picture
        self._by_id: dict[str, Thumbnail | None] = {}
        self._by_uri: dict[str, Thumbnail] = {}

    @property
    def thumbnails(self) -> list[Thumbnail]:
        """All thumbnails so far."""
        return list(self._by_uri.values())

    def take(self, id: str) -> Thumbnail | None:
        """The thumbnail of a row; None if the row has no image."""
        if id not in self._by_id:
            picture = self._picture(id)
            self._by_id[id] = None if picture is None else self._add(picture)
        return self._by_id[id]

    def overlay(self, id: str, grid: Sequence[Sequence[float]]) -> Thumbnail | None:
        """The image of a row in grey under the weights of its patches; None if the row has no image."""
        picture = self._picture(id)
        return None if picture is None else self._add(_overlay(picture, grid))

    def _add(self, picture: Image.Image) -> Thumbnail:
        small = picture.convert("RGBA" if picture.has_transparency_data else "RGB")
        small.thumbnail((THUMBNAIL_SIZE, THUMBNAIL_SIZE))
        uri = _data_uri(small)
        return self._by_uri.setdefault(uri, Thumbnail(f"picture{len(self._by_uri)}", *small.size, uri))


def _overlay(picture: Image.Image, grid: Sequence[Sequence[float]]) -> Image.Image:
    """Light grey for weight 0, full red for FULL times the uniform weight."""
    size = (THUMBNAIL_SIZE, THUMBNAIL_SIZE)
    base = Image.new("RGBA", picture.size, "white")
    base.alpha_composite(picture.convert("RGBA"))
    grey = ImageOps.grayscale(base.convert("RGB")).resize(size).point(lambda v: 96 + v * 159 // 255).convert("RGB")
    weights = np.asarray(grid, dtype=np.float32)
    heat = Image.fromarray(weights / max(FULL * float(weights.mean()), 1e-12)).resize(size, Image.Resampling.BICUBIC)
    mask = Image.fromarray((np.clip(np.asarray(heat), 0.0, 1.0) * HEAT_ALPHA).astype(np.uint8))
    return Image.composite(Image.new("RGB", size, HEAT), grey, mask)


def _data_uri(picture: Image.Image) -> str:
    """The image as PNG, or as JPEG if that is smaller: drawings stay exact, and photographs stay small."""
    forms = {"png": _encoded(picture, "PNG", optimize=True)}
    if picture.mode == "RGB":
        forms["jpeg"] = _encoded(picture, "JPEG", quality=85)
    kind = min(forms, key=lambda k: len(forms[k]))
    return f"data:image/{kind};base64,{base64.b64encode(forms[kind]).decode()}"


def _encoded(picture: Image.Image, form: str, **options: bool | int) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


class Item(NamedTuple):
    """A query or a hit on the page: an image, or text, or neither if the row has another modality."""

    id: str
    picture: Thumbnail | None
    words: str | None
    alt: str


class Answer(NamedTuple):
    """One hit: the item, its similarity, and whether it is correct."""

    item: Item
    score: float
    correct: bool


class Grid(NamedTuple):
    """One direction of retrieval: each row is a query with its hits, nearest first."""

    query: str
    gallery: str
    rows: list[tuple[Item, list[Answer]]]
    num_columns: int
    num_found: int


def grid(retrieval: Retrieval, *, album: Album, text: Callable[[str], str | None]) -> Grid:
    """Add images and captions to retrieval results."""

    def item(id: str, modality: str) -> Item:
        words = text(id)
        picture = album.take(id) if modality == "image" else None
        return Item(id, picture, words if modality == "text" else None, words or id)

    def answers(hits: Sequence[Hit]) -> list[Answer]:
        return [Answer(item(hit.id, retrieval.gallery), hit.score, hit.correct) for hit in hits]

    rows = [
        (item(query, retrieval.query), answers(hits))
        for query, hits in zip(retrieval.queries, retrieval.hits, strict=True)
    ]
    return Grid(
        query=retrieval.query,
        gallery=retrieval.gallery,
        rows=rows,
        num_columns=max((len(row) for _, row in rows), default=0),
        num_found=sum(any(answer.correct for answer in row) for _, row in rows),
    )


class AttentionPanel(NamedTuple):
    """Attention maps over one image: the image, then each word with its map."""

    id: str
    words: str | None
    query: str
    picture: Thumbnail
    maps: list[tuple[str, Thumbnail, float]]


def attention_panel(
    attended: AttentionMap, *, album: Album, text: Callable[[str], str | None]
) -> AttentionPanel | None:
    """Attention of the words of a row to its image; None if there is no image."""
    picture = album.take(attended.id)
    maps = []
    for word, grid in zip(attended.words, attended.grids, strict=True):
        over = album.overlay(attended.id, grid)
        if over is not None:
            maps.append((word, over, sum(map(sum, grid))))
    if picture is None or not maps:
        return None
    return AttentionPanel(attended.id, text(attended.id), attended.query, picture, maps)


class CaptionRow(NamedTuple):
    """A generated sentence: the image or the text of its row, the generated text, and the references."""

    item: Item
    written: str
    right: list[str]
    is_right: bool


class CaptionTable(NamedTuple):
    """Generated sentences of one task."""

    task: str
    rows: list[CaptionRow]


def caption_table(captions: Captions, *, album: Album, text: Callable[[str], str | None]) -> CaptionTable:
    """Add images to generated sentences."""
    return CaptionTable(
        captions.task,
        [
            CaptionRow(
                Item(row.id, picture := album.take(row.id), text(row.id) if picture is None else None, row.id),
                row.written,
                row.right,
                row.written in row.right,
            )
            for row in captions.rows
        ],
    )


class Cell(NamedTuple):
    """One entry of a confusion matrix: number of rows, fraction of the true class, and whether they are correct."""

    num_rows: int
    share: float
    right: bool


class Row(NamedTuple):
    """One true class: its cells, number of rows, and accuracy (None without rows)."""

    name: str
    cells: list[Cell]
    total: int
    accuracy: float | None


class Matrix(NamedTuple):
    """A confusion matrix for the page; `num_left_out` classes without space share the last column."""

    task: str
    columns: list[str]
    rows: list[Row]
    num_right: int
    total: int
    num_left_out: int


def matrix(confusion: Confusion) -> Matrix:
    """A confusion matrix normalized by rows. If there are many classes, those with the most errors are shown."""
    counts = confusion.counts
    totals = [sum(row) for row in counts]
    mistakes = [totals[i] - counts[i][i] for i in range(len(counts))]
    kept = sorted(sorted(range(len(counts)), key=lambda i: -mistakes[i])[:MAX_CLASSES])
    num_left_out = len(counts) - len(kept)

    def row(i: int) -> Row:
        shown = [counts[i][j] for j in kept]
        shown += [totals[i] - sum(shown)] if num_left_out else []
        total = max(totals[i], 1)
        cells = [Cell(n, n / total, k < len(kept) and kept[k] == i) for k, n in enumerate(shown)]
        return Row(confusion.names[i], cells, totals[i], counts[i][i] / totals[i] if totals[i] else None)

    return Matrix(
        task=confusion.task,
        columns=[confusion.names[i] for i in kept] + [OTHERS] * bool(num_left_out),
        rows=[row(i) for i in kept],
        num_right=sum(counts[i][i] for i in range(len(counts))),
        total=sum(totals),
        num_left_out=num_left_out,
    )
