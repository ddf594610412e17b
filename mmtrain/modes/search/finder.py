"""Search in what was indexed: pictures by text, texts by picture, both by speech; and classes by name alone.

from mmtrain.io.escape import one_line
from mmtrain.modes.search.finder import Finder
finder = Finder.load("outputs/search", index="outputs/search/index")
finder.find(text="a red car", k=5)
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from mmtrain.build import build_restored
from mmtrain.data.decoding.image_file import open_image
from mmtrain.data.decoding.media import opened
from mmtrain.data.tables.class_folders import KIND_OF
from mmtrain.data.tables.sample_errors import sample_errors
from mmtrain.errors import ConfigError, SampleError
from mmtrain.io.escape import one_line
from mmtrain.modes.search.index import SearchIndex
from mmtrain.modes.search.towers import Towers
from mmtrain.modes.search.zero_shot import class_vectors, probabilities
from mmtrain.training.checkpoint.load_run import load_trained


class Found(NamedTuple):
    """One item that was found.

    Attributes:
        id: of its row.
        split: that the row is of.
        score: cosine similarity.
        modality: what was looked through.
        file: of the content, where it lies in one.
        text: of the row, the first one.
    """

    id: str
    split: str
    score: float
    modality: str
    file: Path | None
    text: str | None


class Query(NamedTuple):
    """What is asked with: a modality and its content."""

    modality: str
    value: Any


class Finder:
    """A trained model and an index of its vectors.

    Args:
        towers: of the model.
        index: made by these towers; None to do without, as `classify` does.

    Raises:
        ConfigError: when other weights made the index.
    """

    def __init__(self, towers: Towers, index: SearchIndex | None) -> None:
        if index is not None and (mine := towers.digest()) != index.weights:
            raise ConfigError(
                f"the index is stale: weights {index.weights} (step {index.step}) made it, but those of {towers.where}"
                f" are {mine}\n    make it again with mode=predict predict.index=DIR"
            )
        self.towers = towers
        self.index = index

    @classmethod
    def load(cls, run: str | Path, *, index: str | Path | None = None, trust: Sequence[str] = ()) -> "Finder":
        """Take a run's best checkpoint; its data need not be there any more.

        Args:
            run: a run folder, or a checkpoint in one.
            index: a folder that mode=predict wrote; None to do without.
            trust: packages of your own whose classes the run may name, such as `["mine"]`.

        Raises:
            ConfigError: when one of them is not there, has no contrastive task, or they do not belong together.
        """
        trained = load_trained(Path(run), build_restored, trust=trust)
        towers = Towers(trained.lit.model, trained.data.inputs, where=str(run))
        return cls(towers, None if index is None else SearchIndex.read(Path(index)))

    def find(
        self, *, text: str | None = None, image: Any = None, audio: Any = None, within: str | None = None, k: int = 5
    ) -> list[Found]:
        """The k nearest to one query.

        Args:
            text: to ask with; or
            image: a path, or a picture; or
            audio: a path, or samples (L,) at the rate that the model takes.
            within: the modality that is looked through; None: pictures, and texts for a picture.
            k: how many.

        Raises:
            ConfigError: when not exactly one query is given, it cannot be read, or the run or the index lacks the
                modality.
        """
        given = {
            kind: value for kind, value in (("text", text), ("image", image), ("audio", audio)) if value is not None
        }
        if len(given) != 1:
            raise ConfigError(f"find takes one of text, image and audio, and got {', '.join(given) or 'none'}")
        ((kind, value),) = given.items()
        if isinstance(value, Path):
            value = str(value)
        (found,) = self.find_all([Query(self.towers.of_kind(kind), value)], within=within, k=k)
        return found

    def find_all(self, queries: Sequence[Query], *, within: str | None, k: int) -> list[list[Found]]:
        """The k nearest to each query; see `find`."""
        if self.index is None:
            raise ConfigError("there is no index to search in\n    name one that mode=predict wrote")
        found = []
        for query in queries:
            modality = self.within(query.modality, within)
            (nearest,) = self.index.nearest(self._vector(query), modality, k)
            pairs = zip(nearest.rows, nearest.scores, strict=True)
            found.append([self._found(row, score, modality) for row, score in pairs])
        return found

    def within(self, query: str, wanted: str | None) -> str:
        """The modality that is looked through.

        Raises:
            ConfigError: when the index has nothing of it.
        """
        assert self.index is not None
        there = [m for m, vectors in self.index.vectors.items() if len(vectors)]
        if wanted is not None:
            if wanted not in there:
                raise ConfigError(
                    f"search.within = {wanted}, but the index has {', '.join(there)}\n    name one of them"
                )
            return wanted
        usual = "text" if self.towers.kinds[query] == "image" else "image"
        return next(
            (m for m in there if self.towers.kinds[m] == usual), next((m for m in there if m != query), there[0])
        )

    def classify(
        self, images: Sequence[Any], *, names: Sequence[str], templates: Sequence[str] = ("{}",)
    ) -> list[dict[str, float]]:
        """How likely each picture is of each class, the likeliest first; no class was trained for.

        Args:
            images: paths or pictures.
            names: of the classes, as words.
            templates: sentences with {} where the name stands.

        Raises:
            ConfigError: when a picture cannot be read, or the run lacks text or pictures.
        """
        modality = self.towers.of_kind("image")
        classes = class_vectors(self.towers, names, templates)
        vectors = [self._vector(Query(modality, str(i) if isinstance(i, Path) else i)) for i in images]
        tables = [probabilities(vector, classes, scale=self.towers.scale)[0].tolist() for vector in vectors]
        return [dict(sorted(zip(names, t, strict=True), key=lambda pair: -pair[1])) for t in tables]

    def query(self, asked: str) -> Query:
        """What a person typed: the path of a picture or a sound, told by what the file holds, or else a text.

        Raises:
            ConfigError: when it is a file that is neither, or looks like one that is not there; or for a kind that the
                run does not have.
        """
        path = Path(asked).expanduser()
        if not asked.strip():
            raise ConfigError("search.query is blank\n    write a text, or name a picture or a sound")
        if path.suffix.lower() in KIND_OF and not path.is_file():
            raise ConfigError(f"search.query = {asked}: there is no such file\n    mend the path")
        if not path.is_file():
            return Query(self.towers.of_kind("text"), asked)
        kind = kind_of_file(path)
        if kind is None:
            raise ConfigError(f"search.query = {asked}: neither a picture nor a sound that can be read")
        return Query(self.towers.of_kind(kind), str(path.resolve()))

    def _vector(self, query: Query) -> Tensor:
        """(1, D)."""
        if self.towers.kinds[query.modality] == "text" and not str(query.value).strip():
            raise ConfigError("a query is blank\n    write a text")
        try:
            vector = self.towers.encode(query.modality, [query.value])
        except SampleError as error:
            raise ConfigError(f"{one_line(error.file)} cannot be asked with: {one_line(error.reason)}") from error
        return vector

    def _found(self, row: int, score: float, modality: str) -> Found:
        assert self.index is not None
        there = self.index.rows[row]
        return Found(
            id=there.id,
            split=there.split,
            score=score,
            modality=modality,
            file=self.index.file(row, modality),
            text=there.text,
        )


def kind_of_file(path: Path) -> str | None:
    """Image or audio, by what a file holds and not by its name; None for anything else."""
    try:
        with sample_errors(str(path)), open_image(path):
            return "image"
    except SampleError:
        pass
    try:
        with sample_errors(str(path)), opened(path) as container:
            return "audio" if container.streams.audio else None
    except SampleError:
        return None
