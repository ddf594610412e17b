"""No table makes a reader open a file outside of the data folder: every reader, every way to write such a path."""

import io
import json
import os
import pickle
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from mmtrain.build import build_data, compose
from mmtrain.config.compose import config_dir
from mmtrain.data.inputs.images import ImagesInput
from mmtrain.data.module import DataModule
from mmtrain.data.survey.lengths import measure_lengths
from mmtrain.data.survey.overlap import shared_files
from mmtrain.data.tables.paths import PartPath, RemoteFolder, UnconfinedFolder, checked_path, data_folder, leads_out
from mmtrain.errors import ConfigError, SampleError
from mmtrain.types import Bad
from tests.data.films import tone, wav, write_film
from tests.data.inputs.test_audio import audio_input
from tests.data.inputs.test_sequence import fitted
from tests.data.inputs.test_video import video_input
from tests.data.parts import image_input, write_rows

GREEN, RED = (0, 255, 0), (255, 0, 0)  # of what may be read, and of the secret


def fill(folder: Path, colour: tuple[int, int, int]) -> Path:
    """One file for each reader."""
    folder.mkdir(parents=True)
    Image.new("RGB", (8, 8), colour).save(folder / "a.png")
    (folder / "a.wav").write_bytes(wav(tone(0.2, 16000), rate=16000))
    write_film(folder / "a.mp4", 4)
    np.save(folder / "a.npy", np.ones((4, 3)))
    return folder


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A data folder with links out of it, and a folder elsewhere."""
    here = tmp_path_factory.mktemp("places")
    root, out = fill(here / "root", GREEN), fill(here / "out", RED)
    (root / "in").mkdir()
    for name in ("a.png", "a.wav", "a.mp4", "a.npy"):
        (root / f"link{Path(name).suffix}").symlink_to(out / name)
        (root / "in" / name).symlink_to(root / name)
    (root / "folder").symlink_to(out)
    return root, out


READERS: dict[str, tuple[Callable[[], Any], str]] = {
    "image": (image_input, ".png"),
    "images": (
        lambda: ImagesInput(
            max_images=16,
            size=8, mean=[0.5] * 3, std=[0.5] * 3, crop_scale=1.0, rotate=0.0, flip=0.0, color_jitter=0.0,
            background=[255] * 3, max_pixels=10**8,
        ),
        ".png",
    ),
    "audio": (audio_input, ".wav"),
    "video": (video_input, ".mp4"),
    "frames": (video_input, ".png"),
    "sequence": (lambda: fitted([np.ones((4, 3))]), ".npy"),
}  # fmt: skip
WAYS: dict[str, Callable[[Path, Path, str], Any]] = {
    "absolute": lambda root, out, end: str(out / f"a{end}"),
    "up": lambda root, out, end: f"../out/a{end}",
    "up from inside": lambda root, out, end: f"in/../../out/a{end}",
    "link": lambda root, out, end: f"link{end}",
    "linked folder": lambda root, out, end: f"folder/a{end}",
    "behind a linked folder": lambda root, out, end: f"folder/../out/a{end}",
    "bytes and path": lambda root, out, end: {"bytes": None, "path": str(out / f"a{end}")},
    "of a part": lambda root, out, end: PartPath(f"in/../../out/a{end}", root / "in", "birds"),
}


def load(kind: str, value: Any, folder: Path) -> Any:
    reader = READERS[kind][0]()
    return reader.load([value] if kind in ("images", "frames") else value, folder, seed=0, train=False)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", READERS)
def test_no_reader_opens_a_file_outside_of_the_folder(kind: str, way: str, places: tuple[Path, Path]) -> None:
    root, out = places
    value = WAYS[way](root, out, READERS[kind][1])
    with pytest.raises(
        SampleError, match=r"out of the data folder .*; set data\.(parts\.birds\.)?restrict_paths=false"
    ):
        load(kind, value, root)
    assert load(kind, value if way != "of a part" else str(value), UnconfinedFolder(root)) is not None


@pytest.mark.parametrize("kind", READERS)
def test_every_way_to_a_file_inside_serves(kind: str, places: tuple[Path, Path], tmp_path: Path) -> None:
    root, end = places[0], READERS[kind][1]
    linked = tmp_path / "linked"
    linked.symlink_to(root)
    for folder in (root, linked):
        for path in (f"a{end}", f"in/../a{end}", f"in/a{end}", str(root / f"a{end}"), str(linked / f"a{end}")):
            assert load(kind, path, folder) is not None
    assert load(kind, PartPath(f"root/a{end}", root, "birds"), root.parent) is not None


def test_without_a_folder_the_caller_names_files_himself(places: tuple[Path, Path]) -> None:
    root, out = places
    assert load("image", str(out / "a.png"), Path()) is not None
    assert data_folder(Path(), restrict_paths=True).is_absolute(), "but data.root=. is a folder"
    assert isinstance(data_folder(root, restrict_paths=False) / "in", Path)


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize(
    "value", ["~/a.png", "file:///etc/passwd", "http://127.0.0.1:9/a.mp4", "data:,a", "concat:a.mp4|a.mp4", "a\\..\\b"]
)
def test_a_path_is_never_an_address(kind: str, value: str, places: tuple[Path, Path]) -> None:
    with pytest.raises(SampleError, match=r"(N|n)o such file"):
        load(kind, f"{value}{READERS[kind][1]}", places[0])


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("restrict_paths", [True, False])
def test_only_regular_files_are_opened(
    kind: str, restrict_paths: bool, places: tuple[Path, Path], tmp_path: Path
) -> None:
    root, end = data_folder(tmp_path, restrict_paths=restrict_paths), READERS[kind][1]
    os.mkfifo(root / f"pipe{end}")
    (root / f"folder{end}").mkdir()
    for name, reason in ((f"pipe{end}", "is no regular file"), (f"folder{end}", "is a folder"), (".", "is a folder")):
        with pytest.raises(SampleError, match=reason):
            load(kind, name, root)
    (root / f"zero{end}").symlink_to("/dev/zero")
    with pytest.raises(SampleError, match="follows a link out of" if restrict_paths else "is no regular file"):
        load(kind, f"zero{end}", root)


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("path", ["a\0b", "a\ud83d", "x" * 5000, "loop", "loop/a"])
def test_what_is_no_path_is_a_bad_sample(kind: str, path: str, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(SampleError) as caught:
        load(kind, path if path == "loop" else f"{path}{READERS[kind][1]}", tmp_path)
    assert len(str(caught.value)) < 300 and str(caught.value).isprintable()


def test_a_long_path_is_shortened_in_the_message_and_the_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(SampleError) as caught:
        checked_path(tmp_path, "../" + "x" * 200)
    assert str(caught.value) == (
        f"../{'x' * 57}...{'x' * 60}: leads out of the data folder {tmp_path}; set data.restrict_paths=false to allow"
        f" it"
    )


def test_a_data_set_in_the_cache_of_the_hub_has_its_blobs(tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "datasets--user--birds"
    root = repository / "snapshots" / "0123"
    (root / "images").mkdir(parents=True)
    (repository / "blobs").mkdir()
    (repository / "blobs" / "h1").touch()
    (tmp_path / "hub" / "token").touch()
    (root / "images" / "a.png").symlink_to("../../../blobs/h1")
    (root / "b.png").symlink_to("../../../token")
    assert checked_path(root, "images/a.png") == root / "images" / "a.png"
    assert checked_path(root / "images", "a.png") == root / "images" / "a.png"
    assert leads_out(root, "b.png")
    # blobs that are a link themselves are no part of the data set
    (repository / "blobs").rename(tmp_path / "elsewhere")
    (repository / "blobs").symlink_to(tmp_path / "elsewhere")
    other = repository / "snapshots" / "4567"
    other.mkdir()
    (other / "a.png").symlink_to("../../blobs/h1")
    assert leads_out(other, "a.png")


def test_shards_on_a_server_name_no_file_of_this_machine(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    with pytest.raises(
        SampleError, match=r"names a local file, but its shard is on a server; set data\.restrict_paths=false"
    ):
        checked_path(RemoteFolder(tmp_path), "a.png")
    assert leads_out(RemoteFolder(tmp_path), "a.png")
    assert checked_path(data_folder(RemoteFolder(tmp_path), restrict_paths=False), "a.png") == tmp_path / "a.png"


def test_a_path_of_a_part_keeps_its_folder_when_it_is_sent_to_a_worker(tmp_path: Path) -> None:
    path = PartPath("a/b.png", UnconfinedFolder(tmp_path), "birds")
    again = pickle.loads(pickle.dumps(path))
    assert again == "a/b.png" and isinstance(again.root, UnconfinedFolder) and again.part == "birds"


def test_what_measures_files_reads_none_outside(places: tuple[Path, Path], tmp_path: Path) -> None:
    root, out = places
    for kind in ("image", "audio", "video", "sequence"):
        cell = str(out / f"a{READERS[kind][1]}")
        assert measure_lengths(READERS[kind][0](), [(7, cell)], root).unread == [7]
    both = {"train": [("1", str(out / "a.png"))], "val": [("2", "link.png")]}
    assert shared_files(both, dict.fromkeys(both, root), most_bytes=10**6).found == []
    assert len(shared_files(both, dict.fromkeys(both, UnconfinedFolder(root)), most_bytes=10**6).found) == 1


# -------------------------------------------------------- from a configuration to samples


def colours(data: DataModule) -> tuple[list[str], list[Bad]]:
    """What comes out of a loader of each split, and what is set aside."""
    seen, bad = [], []
    for name in data.tables:
        split = data.split(name)
        for row in range(len(split)):
            sample = split[(0, row)]
            bad += sample.bad
            if "image" in sample.inputs:
                red, green, _ = sample.inputs["image"].reshape(-1, 3, 8, 8)[0, :, 0, 0].tolist()
                seen.append("red" if red > green else "green")
    return seen, bad


def read(cfg: DictConfig, run: Path) -> DataModule:
    data = build_data(cfg)
    data.read(run, training=True)
    return data


def png(file: Path) -> bytes:
    return file.read_bytes()


def in_parquet(root: Path, out: Path, folder: Path) -> list[str]:
    cells = [{"bytes": png(root / "a.png"), "path": None}, {"bytes": None, "path": str(out / "a.png")}]
    folder.mkdir()
    pq.write_table(pa.table({"image": cells, "label": ["a", "b"]}), folder / "train.parquet")
    return []


def in_nested_parquet(root: Path, out: Path, folder: Path) -> list[str]:
    """Lists of pictures, which `datasets` itself would open."""
    features = datasets.Features({"image": datasets.List(datasets.Image()), "label": datasets.Value("string")})
    cells = [[{"bytes": png(root / "a.png"), "path": None}], [{"bytes": None, "path": str(out / "a.png")}]]
    folder.mkdir()
    plain = {"image": datasets.List({"bytes": datasets.Value("binary"), "path": datasets.Value("string")})}
    made = datasets.Dataset.from_dict(
        {"image": cells, "label": ["a", "b"]}, features=datasets.Features(plain | {"label": features["label"]})
    )
    table = made.data.table.replace_schema_metadata(features.arrow_schema.metadata)
    pq.write_table(table, folder / "train.parquet")
    return ["input@data.inputs.image=images", "data.inputs.image.crop_scale=1.0"]


def in_jsonl(path: str) -> Callable[[Path, Path, Path], list[str]]:
    def write(root: Path, out: Path, folder: Path) -> list[str]:
        folder.mkdir()
        (folder / "a.png").write_bytes(png(root / "a.png"))
        (folder / "link.png").symlink_to(out / "a.png")
        rows = [{"image": "a.png", "label": "a"}, {"image": path.format(out=out), "label": "b"}]
        write_rows(folder / "train.jsonl", rows)
        return []

    return write


def in_turns(root: Path, out: Path, folder: Path) -> list[str]:
    in_jsonl("link.png")(root, out, folder)
    rows = [{"turns": [{"text": "look", "image": name}], "label": name} for name in ("a.png", "link.png")]
    write_rows(folder / "train.jsonl", rows)
    return []


def in_classes(root: Path, out: Path, folder: Path) -> list[str]:
    for label in ("cat", "dog"):
        (folder / label).mkdir(parents=True)
        for number in range(10):
            (folder / label / f"{number}.png").write_bytes(png(root / "a.png"))
    (folder / "dog" / "link.png").symlink_to(out / "a.png")
    return ["data.split.fractions={train: 0.5, val: 0.5, test: 0}"]


def write_tar(file: Path, members: dict[str, bytes]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def in_tar(path: str) -> Callable[[Path, Path, Path], list[str]]:
    def write(root: Path, out: Path, folder: Path) -> list[str]:
        secret = json.dumps({"jpg": path.format(out=out), "label": "b"}).encode()
        mine = json.dumps({"label": "a"}).encode()
        write_tar(folder / "0.tar", {"0.jpg": png(root / "a.png"), "0.json": mine, "1.json": secret})
        (folder / "link.png").symlink_to(out / "a.png")
        return []

    return write


def in_train_tar(path: str) -> Callable[[Path, Path, Path], list[str]]:
    return lambda root, out, folder: in_tar(path)(root, out, folder / "train")


HUB = ["data=hub", "data.name={root}", "data.split.fractions={{train: 1, val: 0, test: 0}}"]
MIX = ["data=mix", "+part@data.parts.mine=files", "data.parts.mine.source.root={root}"]
FILES = ["data=files", "data.root={root}"]
SHARDS = ["data=shards", "data.train={root}/*.tar", "data.source.cache_dir={root}/cache", "data.columns.image=jpg"]
CC3M = ["data=cc3m", "data.root={root}", "data.source.val=null", *SHARDS[2:]]
SET_ASIDE, REFUSED = False, True  # the one sample, or the table before anything is read
CASES: dict[str, tuple[Callable[[Path, Path, Path], list[str]], Sequence[str], bool]] = {
    "files, bytes and a path": (in_parquet, FILES, REFUSED),
    "hub, bytes and a path": (in_parquet, HUB, REFUSED),
    "mix, bytes and a path": (in_parquet, MIX, REFUSED),
    "files, lists of pictures": (in_nested_parquet, FILES, REFUSED),
    "hub, lists of pictures": (in_nested_parquet, HUB, REFUSED),
    "files, absolute": (in_jsonl("{out}/a.png"), FILES, REFUSED),
    "files, up": (in_jsonl("../out/a.png"), FILES, REFUSED),
    "files, link": (in_jsonl("link.png"), FILES, SET_ASIDE),
    "mix, up": (in_jsonl("../out/a.png"), MIX, REFUSED),
    "mix, link": (in_jsonl("link.png"), MIX, SET_ASIDE),
    "files, link in a turn": (in_turns, FILES, SET_ASIDE),
    "class folders, link": (in_classes, FILES, SET_ASIDE),
    "hub, class folders, link": (in_classes, HUB, SET_ASIDE),
    "shards, absolute": (in_tar("{out}/a.png"), SHARDS, SET_ASIDE),
    "shards, up": (in_tar("../out/a.png"), SHARDS, SET_ASIDE),
    "shards, link": (in_tar("link.png"), SHARDS, SET_ASIDE),
    "cc3m, up": (in_train_tar("../../out/a.png"), CC3M, SET_ASIDE),
}


@pytest.mark.parametrize("case", CASES)
def test_no_data_set_gives_out_what_lies_elsewhere(case: str, places: tuple[Path, Path], tmp_path: Path) -> None:
    write, named, is_refused = CASES[case]
    root, (_, out) = tmp_path / "root", places
    (tmp_path / "out").symlink_to(out)
    more = write(*places, root)
    small = ["data.batch_size=1", "data.inputs.image.size=8", "task=[classification]"]
    cfg = compose([*small, *(word.format(root=root) for word in named), *more])
    if is_refused:
        with pytest.raises(ConfigError, match=r"leads out of the folder: .*\n.*restrict_paths=false"):
            read(cfg, tmp_path / "run")
    else:
        seen, bad = colours(read(cfg, tmp_path / "run"))
        assert set(seen) == {"green"}
        assert len(bad) == 1 and "out of the data folder" in bad[0].reason
    for node in (cfg.data, *cfg.data.source.get("parts", {}).values()):  # what was composed is resolved
        node.restrict_paths = False
    seen, _ = colours(read(cfg, tmp_path / "open"))
    assert "red" in seen, "the test would see the secret"


def test_it_is_on_unless_somebody_turns_it_off() -> None:
    configs = config_dir()
    given = {path.relative_to(configs).as_posix(): OmegaConf.load(path) for path in configs.glob("[dpt]*/*.yaml")}
    said = {name: OmegaConf.to_container(cfg).get("restrict_paths") for name, cfg in given.items()}
    own = {"data/openmoji_questions.yaml", "part/openmoji_questions.yaml"}  # written by mmtrain itself
    assert said["tables/default.yaml"] is True
    assert {name for name in said if said[name] is False} == own
    assert all(value in (None, False, True, "${data.restrict_paths}") for value in said.values())
    inherit = {name for name, cfg in given.items() if "files" in OmegaConf.to_container(cfg).get("defaults", [])}
    assert all(said[name] is not None for name in said if name.startswith("part/") and name not in inherit)
