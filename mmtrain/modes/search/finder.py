"""Search in an index: images by text, texts by image, both by speech; and zero-shot classification.

from mmtrain.io.escape import one_line
from mmtrain.modes.search.finder import Finder
finder = Finder.load("outputs/search", index="outputs/search/index")
finder.find(text="a red car", k=5)
"""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from torch import Tensor

from mmtrain.build import build_data, build_model, compose, rebuild_without_tables
from mmtrain.data.decoding.image_file import open_image
from mmtrain.data.decoding.media import open_media
from mmtrain.data.tables.class_folders import KIND_OF
from mmtrain.data.tables.sample_errors import sample_errors
from mmtrain.errors import ConfigError, SampleError
from mmtrain.io.escape import one_line
from mmtrain.modes.search.classes import load_class_names, load_templates
from mmtrain.modes.search.index import SearchIndex
from mmtrain.modes.search.towers import Towers
from mmtrain.modes.search.zero_shot import class_vectors, probabilities
from mmtrain.training.checkpoint.load_run import load_run


class SearchResult(NamedTuple):
    """One search result.

    Attributes:
        id: of its row.
        split: of the row.
        score: cosine similarity.
        modality: of the searched vectors.
        file: with the content, if it is in a file.
        text: the first text of the row.
    """

    id: str
    split: str
    score: float
    modality: str
    file: Path | None
    text: str | None


class Query(NamedTuple):
    """A query: a modality and its content."""

    modality: str
    value: Any


class Finder:
    """A trained model and an index of its vectors.

    Args:
        towers: of the model.
        index: created by the same towers; None if it is not needed, as for `classify`.

    Raises:
        ConfigError: if the index was created by other weights.
    """

    def __init__(self, towers: Towers, index: SearchIndex | None) -> None:
        if index is not None and (mine := towers.digest()) != index.weights:
            raise ConfigError(
                f"the index is stale: the weights {index.weights} (step {index.step}) created it, but {towers.where}"
                f" has {mine}\n    fix: create it again with mode=predict predict.index=DIR"
            )
        self.towers = towers
        self.index = index

    @classmethod
    def load(cls, run: str | Path, *, index: str | Path | None = None, trust: Sequence[str] = ()) -> "Finder":
        """Load the best checkpoint of a run. Its data is not needed.

        Args:
            run: a run folder, or a checkpoint in one.
            index: a folder that mode=predict wrote; None if it is not needed.
            trust: packages of your own whose classes the run may name, such as `["mine"]`.

        Raises:
            ConfigError: if one of them does not exist, the run has no contrastive task, or they do not match.
        """
        trained = load_run(Path(run), rebuild_without_tables, trust=trust)
        towers = Towers(trained.lit.model, trained.data.inputs, where=str(run))
        return cls(towers, None if index is None else SearchIndex.read(Path(index)))

    @classmethod
    def pretrained(cls, name: str | Path, *, encoder: str = "clip") -> "Finder":
        """Load a pretrained pair as it is, without a run, for `classify`.

        Args:
            name: a folder or a name on the hub.
            encoder: the set of encoders that loads it: clip, for pairs of transformers.

        Raises:
            ConfigError: if it is no pair.
        """
        quoted = "'" + str(name).replace("'", "\\'") + "'"
        cfg = compose([f"encoder={encoder}", f"encoder.pretrained={quoted}", "task=[contrastive]"])
        data = build_data(cfg)
        with TemporaryDirectory() as folder:
            data.fit_without_tables(folder)
        return cls(Towers(build_model(cfg, data), data.inputs, where=str(name)), None)

    def find(
        self, *, text: str | None = None, image: Any = None, audio: Any = None, within: str | None = None, k: int = 5
    ) -> list[SearchResult]:
        """Return the k nearest items to one query.

        Args:
            text: the query; or
            image: a path or an image; or
            audio: a path, or samples (L,) at the sampling rate of the model.
            within: the modality to search; None searches images, or texts if the query is an image.
            k: number of items.

        Raises:
            ConfigError: if there is not exactly one query, it cannot be read, or the run or the index does not have the
                modality.
        """
        given = {
            kind: value for kind, value in (("text", text), ("image", image), ("audio", audio)) if value is not None
        }
        if len(given) != 1:
            raise ConfigError(f"find needs one of text, image and audio, but got {', '.join(given) or 'none'}")
        ((kind, value),) = given.items()
        if isinstance(value, Path):
            value = str(value)
        (result,) = self.find_all([Query(self.towers.of_kind(kind), value)], within=within, k=k)
        return result

    def find_all(self, queries: Sequence[Query], *, within: str | None, k: int) -> list[list[SearchResult]]:
        """Return the k nearest items to each query; see `find`."""
        if self.index is None:
            raise ConfigError("there is no index to search\n    fix: name an index that mode=predict wrote")
        results = []
        for query in queries:
            modality = self.within(query.modality, within)
            (nearest,) = self.index.nearest(self._vector(query), modality, k)
            pairs = zip(nearest.rows, nearest.scores, strict=True)
            results.append([self._found(row, score, modality) for row, score in pairs])
        return results

    def within(self, query: str, wanted: str | None) -> str:
        """The modality to search.

        Raises:
            ConfigError: if the index does not have it.
        """
        assert self.index is not None
        available = [m for m, vectors in self.index.vectors.items() if len(vectors)]
        if wanted is not None:
            if wanted not in available:
                raise ConfigError(
                    f"search.within={wanted}: the index has only {', '.join(available)}\n    fix: name one of them"
                )
            return wanted
        usual = "text" if self.towers.kinds[query] == "image" else "image"
        return next(
            (m for m in available if self.towers.kinds[m] == usual),
            next((m for m in available if m != query), available[0]),
        )

    def classify(
        self, images: Sequence[Any], *, names: str | Sequence[str], templates: str | Sequence[str] = ("{}",)
    ) -> list[dict[str, float]]:
        """Return the probability of each class for each image, in descending order. No class was trained for.

        Args:
            images: paths or images.
            names: of the classes, as words; or a file or a set of this project, such as "cifar10".
            templates: sentences with {} in place of the name; or a file or a set, such as "objects".

        Raises:
            ConfigError: if an image cannot be read, or the run does not have text and images.
        """
        modality = self.towers.of_kind("image")
        names = list(load_class_names(names).values())
        classes = class_vectors(self.towers, names, load_templates(templates))
        vectors = [self._vector(Query(modality, str(i) if isinstance(i, Path) else i)) for i in images]
        tables = [probabilities(vector, classes, scale=self.towers.scale)[0].tolist() for vector in vectors]
        return [dict(sorted(zip(names, t, strict=True), key=lambda pair: -pair[1])) for t in tables]

    def query(self, text: str) -> Query:
        """Interpret user input: the path of an image or a sound, determined by the content of the file, or else a text.

        Raises:
            ConfigError: if the file is neither, or looks like a file but does not exist, or if the run does not have
                this kind of input.
        """
        path = Path(text).expanduser()
        if not text.strip():
            raise ConfigError("search.query: blank\n    fix: write a text, or name an image or audio file")
        if path.suffix.lower() in KIND_OF and not path.is_file():
            raise ConfigError(f"search.query={text}: the file does not exist\n    fix: correct the path")
        if not path.is_file():
            return Query(self.towers.of_kind("text"), text)
        kind = kind_of_file(path)
        if kind is None:
            raise ConfigError(f"search.query={text}: neither a readable image nor a readable sound")
        return Query(self.towers.of_kind(kind), str(path.resolve()))

    def _vector(self, query: Query) -> Tensor:
        """(1, D)."""
        if self.towers.kinds[query.modality] == "text" and not str(query.value).strip():
            raise ConfigError("search.query: a query is blank\n    fix: write a text")
        try:
            vector = self.towers.encode(query.modality, [query.value])
        except SampleError as error:
            raise ConfigError(f"search.query={one_line(error.file)}: {one_line(error.reason)}") from error
        return vector

    def _found(self, row: int, score: float, modality: str) -> SearchResult:
        assert self.index is not None
        record = self.index.rows[row]
        return SearchResult(
            id=record.id,
            split=record.split,
            score=score,
            modality=modality,
            file=self.index.file(row, modality),
            text=record.text,
        )


def kind_of_file(path: Path) -> str | None:
    """Whether a file is an image or audio, by its content and not by its name; None for anything else."""
    try:
        with sample_errors(str(path)), open_image(path):
            return "image"
    except SampleError:
        pass
    try:
        with sample_errors(str(path)), open_media(path) as container:
            return "audio" if container.streams.audio else None
    except SampleError:
        return None
