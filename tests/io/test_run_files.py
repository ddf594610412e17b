"""Files of a run: the old content or the new one after a kill, a full disk or a fault, and checked when read."""

import ast
import errno
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from PIL import Image

from mmtrain.errors import ConfigError, WriteError
from mmtrain.io import atomic as atomic_files
from mmtrain.io.atomic import atomic_write, current, replacing, replacing_files
from mmtrain.io.os_errors import FIXES, environment_errno, explanation
from mmtrain.io.run_files import (
    append_line,
    optional_json,
    read_config,
    read_csv,
    read_json,
    read_json_lines,
    read_text,
    write_config,
    write_csv,
    write_end,
    write_json,
    write_json_lines,
    write_picture,
    write_text,
)

ROOT = Path(__file__).resolve().parents[2]
NOISE = Image.effect_noise((200, 200), 90)
WRITERS: dict[str, Callable[[Path], None]] = {
    "a.txt": lambda path: write_text(path, "new\n" * 5000),
    "a.json": lambda path: write_json(path, {"new": list(range(5000))}),
    "a.jsonl": lambda path: write_json_lines(path, ({"row": row} for row in range(5000))),
    "a.csv": lambda path: write_csv(path, ["step", "loss"], [[step, step / 3] for step in range(5000)]),
    "a.yaml": lambda path: write_config(path, OmegaConf.create({"data": {"rows": list(range(900))}})),
    "a.png": lambda path: write_picture(path, NOISE),
}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def full(*_: object) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(place)]
    try:
        mounted = os.getuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("only the superuser can mount")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def fill(disk: Path) -> None:
    with (disk / "filler").open("wb", buffering=0) as file:
        while True:
            try:
                file.write(b"x" * 4096)
            except OSError:
                return


# ---------------------------------------------------------------------------- writing


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_is_replaced_completely(name: str, tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / name
    WRITERS[name](path)
    first = path.read_bytes()
    path.write_bytes(b"old")
    WRITERS[name](path)
    assert path.read_bytes() == first and names(path.parent) == [name]


@pytest.mark.parametrize("stage", ["fsync", "replace"])
@pytest.mark.parametrize("name", WRITERS)
def test_the_old_content_stays_when_writing_fails(
    name: str, stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / name
    path.write_bytes(b"old")
    monkeypatch.setattr(*{"fsync": (os, "fsync"), "replace": (Path, "replace")}[stage], full)
    with pytest.raises(WriteError) as caught:
        WRITERS[name](path)
    assert str(caught.value) == f"{path}: cannot be written: No space left on device\n    fix: {FIXES[errno.ENOSPC]}"
    assert path.read_bytes() == b"old" and names(tmp_path) == [name]


@pytest.mark.parametrize("name", WRITERS)
def test_the_old_content_stays_on_a_disk_that_is_full(name: str, small_disk: Path) -> None:
    path = small_disk / name
    path.write_bytes(b"old")
    fill(small_disk)
    with pytest.raises(WriteError, match="No space left on device\n    fix: free space"):
        WRITERS[name](path)
    assert path.read_bytes() == b"old" and names(small_disk) == sorted([name, "filler"])


def test_the_old_content_stays_when_the_writer_is_interrupted(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def rows() -> Iterator[dict[str, int]]:
        yield {"row": 0}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_json_lines(path, rows())
    assert path.read_text() == "old" and names(tmp_path) == ["a.txt"]


def test_what_a_killed_writer_left_goes_with_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    child = os.fork()
    if child == 0:
        with replacing(path) as part:
            part.write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert path.read_text() == "old"
    (left,) = tmp_path.glob(".a.txt.*.part")
    with replacing(path) as part:
        assert not left.exists() and part != left
        earlier = part.with_name(f".a.txt.{atomic_files._host()}-{os.getpid()}-00000000.part")
        earlier.touch()  # of a process that had this number, in a container that was started again
        write_text(path, "of another thread at the same time")
        assert part.exists() and not earlier.exists()
        part.write_text("new")
    assert path.read_text() == "new"


def test_parts_of_other_machines_go_when_they_are_old(tmp_path: Path) -> None:
    parts = [tmp_path / f".a.txt.elsewhere-1-{digit * 8}.part" for digit in "ab"]
    for part in parts:
        part.touch()
    os.utime(parts[0], (0, 0))
    write_text(tmp_path / "a.txt", "new")
    assert [part.exists() for part in parts] == [False, True]


def test_a_link_is_followed_and_a_device_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link, target = tmp_path / "link", tmp_path / "there" / "a.txt"
    link.symlink_to(target)
    write_text(link, "new")
    assert link.is_symlink() and target.read_text() == "new"
    (tmp_path / "null").symlink_to("/dev/null")
    write_text(tmp_path / "null", "lost")
    assert Path("/dev/null").is_char_device()


def test_a_file_has_the_rights_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    with replacing(tmp_path / "a") as part:
        part.unlink()
        os.close(os.open(part, os.O_CREAT, 0o600))  # as safetensors does
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("a" * 300, "File name too long\n    fix: use a shorter name"),
        ("file/a.json", "\n    fix: name another file or folder"),
        ("folder", "Is a directory\n    fix: name another file or folder"),
    ],
)
def test_what_cannot_be_written_is_explained(path: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(WriteError, match="cannot be written") as caught:
        write_text(tmp_path / path, "new")
    assert words in str(caught.value) and str(tmp_path / path) in str(caught.value)


def test_a_long_name_is_possible(tmp_path: Path) -> None:
    write_text(tmp_path / ("a" * 250), "new")
    write_text(tmp_path / ("ö" * 120), "new")


@pytest.mark.parametrize("number", [errno.EROFS, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EIO, errno.EMFILE])
def test_every_such_error_has_its_fix(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(WriteError) as caught:
        write_text(tmp_path / "a", "new")
    assert f"{os.strerror(number)}\n    fix: {FIXES[number]}" in str(caught.value)


def test_a_fault_of_the_program_is_not_explained_away(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_json(tmp_path / "a", {"set": {1}})
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "a"):
        _ = 1 / 0
    assert names(tmp_path) == []


def test_errors_of_libraries_in_other_languages_are_known() -> None:
    from safetensors import SafetensorError

    assert environment_errno(SafetensorError("I/O error: No space left on device (os error 28)")) == errno.ENOSPC
    assert environment_errno(Exception("Read-only file system (os error 30)")) == errno.EROFS
    assert environment_errno(RuntimeError("unable to write: No space left on device (28)")) == errno.ENOSPC
    assert environment_errno(ValueError("no room on this shelf")) is None
    assert environment_errno(FileNotFoundError(errno.ENOENT, "No such file", "a")) is None
    assert explanation(PermissionError(errno.EPERM, "Operation not permitted"), "x") is None, "it may be of a signal"
    assert explanation(PermissionError(errno.EACCES, "Permission denied", "a"), "x") == (
        f"a: Permission denied\n    fix: {FIXES[errno.EACCES]}"
    )


def test_half_an_emoji_is_written_and_comes_back(tmp_path: Path) -> None:
    rows = [{"text": "\ud83d"}, {"text": "a\u2028b\x85c\x0bd"}]
    write_json_lines(tmp_path / "a.jsonl", rows)
    write_json(tmp_path / "a.json", rows)
    assert read_json_lines(tmp_path / "a.jsonl") == rows == read_json(tmp_path / "a.json", fix="")
    write_csv(tmp_path / "a.csv", ["name"], [["\ud83d"]])


def test_a_picture_whose_ending_says_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"images cannot be written as '.pngg'\n    fix: name it .*found.png"):
        write_picture(tmp_path / "found.pngg", Image.new("RGB", (2, 2)))


# ---------------------------------------------------------------------------- several files at once


def files_of(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


OLD = {"a": "old a", "b/c": "old c", "b/d": "old d", "mine": "kept"}


def put(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def test_files_replace_those_of_their_names_together(tmp_path: Path) -> None:
    put(tmp_path, OLD)
    with replacing_files(tmp_path) as part:
        put(part, {"a": "new a", "b/c": "new c"})
        assert files_of(tmp_path)["a"] == "old a"
    assert files_of(tmp_path) == {"a": "new a", "b/c": "new c", "mine": "kept"}


def test_all_files_stay_when_one_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, OLD)

    def write(fault: Callable[[Path], None]) -> None:
        with replacing_files(tmp_path) as part:
            put(part, {"b/c": "new c"})
            fault(part)

    with pytest.raises(ZeroDivisionError):
        write(lambda part: print(1 / 0))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WriteError) as caught:
        write(lambda part: write_text(part / "a", "new a"))
    assert str(caught.value).startswith(f"{tmp_path}/a: cannot be written: No space"), "not the name of the part"
    assert files_of(tmp_path) == OLD


@pytest.mark.parametrize("moves", range(4))
def test_a_kill_while_files_are_moved_leaves_the_new_ones(
    moves: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, OLD)
    left, move = moves, Path.replace

    def killed(self: Path, target: Path) -> Path:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return move(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", killed)
        try:
            with replacing_files(tmp_path) as part:
                put(part, {"a": "new a", "b/c": "new c", "e": "new e"})
        except KeyboardInterrupt:
            assert moves < 3
    results = [current(tmp_path, name).read_text() for name in ("a", "b/c", "e", "mine")]
    assert results == ["new a", "new c", "new e", "kept"]
    with replacing_files(tmp_path) as part:
        put(part, {"e": "newer e"})
    assert files_of(tmp_path) == {"a": "new a", "b/c": "new c", "e": "newer e", "mine": "kept"}


# ---------------------------------------------------------------------------- logs


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Files cannot grow further, so that a write stops in the middle."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:  # at once: pytest may be writing into a file
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_log_ends_as_it_did_when_a_line_does_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "log"
    append_line(path, "first")
    append_line(path, "second")
    with pytest.raises(WriteError, match="File too large"), files_of_at_most(20):
        append_line(path, "a third line of forty letters or more, so")
    assert path.read_text() == "first\nsecond\n"
    with pytest.raises(WriteError, match="File too large"), files_of_at_most(20):
        write_end(path, 6, "a second line that is much longer")
    assert path.read_text() == "first\nsecond\n"


def test_the_end_of_a_log_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("first\nsecond\n")
    write_end(path, 6, "2\n")
    assert path.read_text() == "first\n2\n"
    write_end(path, 6, "the second\n")
    assert path.read_text() == "first\nthe second\n"


def test_a_kill_while_the_end_is_replaced_loses_no_complete_row(tmp_path: Path) -> None:
    """Between the write and the truncation the rest of a longer row remains: it has too few cells to be one."""
    path = tmp_path / "metrics.csv"
    path.write_text("step,epoch,loss\r\n1,0,0.5\r\n2,0,0.123456789\r\n")
    with path.open("r+b") as file:
        file.seek(len("step,epoch,loss\r\n1,0,0.5\r\n"))
        file.write(b"2,1,0.1\r\n")
    assert read_csv(path, whole_numbers=("step",)).rows == [
        {"step": "1", "epoch": "0", "loss": "0.5"},
        {"step": "2", "epoch": "1", "loss": "0.1"},
    ]


# ---------------------------------------------------------------------------- reading


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (Path.unlink, "is missing\n"),
    "empty": (lambda path: path.write_bytes(b""), "is damaged: it is empty\n"),
    "zeros": (lambda path: path.write_bytes(bytes(path.stat().st_size)), "is damaged: NUL bytes from byte 0 on"),
    "zeros behind": (lambda path: path.write_bytes(path.read_bytes() + bytes(9)), "is damaged: NUL bytes from byte"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-9]), "is damaged: it "),
    "other bytes": (lambda path: path.write_bytes(b"\xff" + path.read_bytes()), "is damaged: byte 0 is not UTF-8"),
    "another type": (lambda path: path.write_bytes(b"[1]"), "is damaged: "),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named_with_the_fix(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "classes_label.json"
    write_json(path, {"names": ["cat", "dog"], "counts": [3, 4]})
    assert read_json(path, fix="", keys=("names", "counts"))["counts"] == [3, 4]
    break_it, words = DAMAGES[damage]
    break_it(path)
    with pytest.raises(ConfigError) as caught:
        read_json(path, fix="restore it", keys=("names", "counts"))
    assert str(caught.value).startswith(f"{path} {words}") and str(caught.value).endswith("\n    fix: restore it")


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_that_nothing_depends_on_is_only_noted(
    damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "plan.json"
    write_json(path, {"names": ["cat", "dog"], "counts": [3, 4]})
    DAMAGES[damage][0](path)
    assert optional_json(path) is None
    noted = capsys.readouterr().err
    assert noted == "" if damage == "missing" else f"{path} is damaged" in noted and "continuing without it" in noted


@pytest.mark.parametrize("damage", [name for name in DAMAGES if name != "cut"])
def test_a_damaged_configuration_is_named_with_the_fix(damage: str, tmp_path: Path) -> None:
    content = {"task": {}, "data": {"root": "a"}, "encoder": {}, "trainer": {"max_epochs": 2}}
    write_config(tmp_path / "config.yaml", OmegaConf.create(content))
    assert OmegaConf.to_container(read_config(tmp_path)) == content
    DAMAGES[damage][0](tmp_path / "config.yaml")
    with pytest.raises(ConfigError, match=r"config\.yaml is (damaged|missing)"):
        read_config(tmp_path)


def test_a_configuration_that_was_cut_lacks_its_last_section(tmp_path: Path) -> None:
    content = {"task": {}, "data": {"root": "a"}, "encoder": {}, "trainer": {"max_epochs": 2}}
    write_config(tmp_path / "config.yaml", OmegaConf.create(content))
    text = (tmp_path / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(text[: text.index("trainer")])
    with pytest.raises(ConfigError, match="is damaged: it has no trainer\n    fix: restore it, or resume the run"):
        read_config(tmp_path)


def test_lines_that_cannot_be_read_are_left_out_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "quarantine.jsonl"
    assert read_json_lines(path) == []
    good = [{"row": 1, "id": "a\u2028b"}, {"row": 2, "id": "\x85"}]
    lines = [json.dumps(row, ensure_ascii=False).encode() for row in good]
    wrong = [b'{"row": 3, "i', b"\0\0\0\0", b'{"other": 3}', b"[1, 2]", b'{"row": 4, "id": "\xff"}', b"[" * 100_000]
    path.write_bytes(b"\n".join([lines[0], *wrong, b"", lines[1]]) + b"\n" + bytes(50))
    assert read_json_lines(path, keys=("row", "id")) == good
    assert capsys.readouterr().err == f"{path}: 7 of 9 lines cannot be read and are skipped\n"
    path.write_bytes(lines[0] + b"\n" + lines[1][:-3])
    assert read_json_lines(path) == good[:1]
    assert capsys.readouterr().err == f"{path}: 1 of 2 lines cannot be read and is skipped\n"


def test_rows_that_cannot_be_read_are_left_out_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "metrics.csv"
    assert read_csv(path, whole_numbers=("step",)) == ([], [])
    path.write_bytes(b"step,loss\r\n1,0.5\r\n2,\0\0\0\r\n3\r\nx,0.5\r\n4,0.25\r\n5,0.1" + bytes(20))
    result = read_csv(path, whole_numbers=("step",))
    assert result.columns == ["step", "loss"] and [row["step"] for row in result.rows] == ["1", "4"]
    assert capsys.readouterr().err == f"{path}: 4 of 6 lines cannot be read and are skipped\n"
    for damaged in (b"", bytes(40), b"step,lo", b"loss,epoch\r\n1,2\r\n", b"\xff\xfe\n"):
        path.write_bytes(damaged)
        assert read_csv(path, whole_numbers=("step",)) == ([], []), damaged


def test_what_may_not_be_read_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> bytes:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ConfigError, match="a: cannot be read: Permission denied\n    fix: give yourself access"):
        read_text(tmp_path / "a", fix="restore it")


# ---------------------------------------------------------------------------- nothing else writes

FUNCTIONS = {"save_file", "save_for_hf"}
WRITES = {
    "write_text",
    "write_bytes",
    "savefig",
    "to_csv",
    "to_json",
    "to_parquet",
    "dump",
    "savez",
    "touch",
}
SAVES = {"save", "save_pretrained", "export_chrome_trace", "copy", "copytree", "copyfile"}
MODULES = {"np", "torch", "OmegaConf", "shutil", "export"}
# By module, what writes without `run_files`, and why that may be.
ALLOWED = {
    "mmtrain/io/run_files.py": "it is the one",
    "mmtrain/io/atomic.py": "what it writes with",
    "mmtrain/training/memory.py": "/proc is no disk",
    "mmtrain/data/tables/arrow_rows.py": "into the part file of mmtrain/data/tables/row_tables.py",
    "mmtrain/modes/export/export.py": "into the part folder of scripts/export.py",
    "mmtrain/modes/export/pair.py": "into the part folder of scripts/export.py",
    "mmtrain/modes/export/llava.py": "into the part folder of scripts/export_chat.py",
    "mmtrain/layers/timm_model.py": "into the part folder of scripts/export.py",
    "mmtrain/layers/transformers_model.py": "into the part folder of scripts/export.py",
    "mmtrain/encoders/audio/huggingface.py": "into the part folder of scripts/export.py",
    "mmtrain/data/inputs/text.py": "into the part folder of data/tokenizers/vocabulary.py",
    "mmtrain/data/targets/chat.py": "into the part folder of data/tokenizers/vocabulary.py",
    "mmtrain/data/sources/openmoji.py": "into a folder that is renamed when it is complete",
}
SCRIPTS = ("export.py", "export_chat.py", "make_preferences.py", "show_data.py")
SAFE = {"replacing", "atomic_write", "replacing_files"}


def writes_of(tree: ast.AST) -> Iterator[int]:
    """The lines that write a file, but for those inside `with replacing(...)` and the like, and into memory."""
    safe: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.With):
            called = [item.context_expr.func for item in node.items if isinstance(item.context_expr, ast.Call)]
            if any(isinstance(name, ast.Name) and name.id in SAFE for name in called):
                safe |= {id(inner) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and id(node) not in safe and _writes(node):
            yield node.lineno


def _writes(call: ast.Call) -> bool:
    function = call.func
    name = (
        function.attr if isinstance(function, ast.Attribute) else function.id if isinstance(function, ast.Name) else ""
    )
    given = [*call.args, *(word.value for word in call.keywords)]
    if any(isinstance(value, ast.Name) and value.id == "buffer" for value in given):
        return False
    if name == "open":
        texts = [v.value for v in given if isinstance(v, ast.Constant) and isinstance(v.value, str)]
        return any(set(text) <= set("rwaxbt+") and set(text) & set("wax+") for text in texts)
    owner = function.value if isinstance(function, ast.Attribute) else None
    is_library = isinstance(owner, ast.Name) and owner.id in MODULES
    is_of_picture = name == "save" and len(call.args) == 1
    if owner is None:
        return name in FUNCTIONS
    return name in WRITES or name in SAVES - {"save", "copy"} or (name in SAVES and (is_library or is_of_picture))


def test_files_are_written_by_one_module() -> None:
    results = {}
    modules = [*(ROOT / "mmtrain").rglob("*.py"), *(ROOT / "scripts" / name for name in SCRIPTS)]
    for path in modules:
        lines = list(writes_of(ast.parse(path.read_text(encoding="utf-8"))))
        if lines:
            results[str(path.relative_to(ROOT))] = lines
    wrong = {name: lines for name, lines in results.items() if name not in ALLOWED}
    assert not wrong, f"write with mmtrain.io.run_files, which keeps the old content until the new is complete: {wrong}"
    assert set(ALLOWED) <= set(results), "what writes nothing any more needs no permission"


def test_writing_is_found() -> None:
    code = """
path.write_text("a")
path.open("w")
open(path, "ab")
path.open("r+", newline="")
picture.save(path)
np.save(path, a)
figure.savefig(path)
with path.open("wb") as file:
    json.dump(a, file)
"""
    assert list(writes_of(ast.parse(code))) == [2, 3, 4, 5, 6, 7, 8, 9, 10]
    good = "with replacing(path) as part, part.open('wb') as file:\n    np.save(file, a)\npath.open('rb')\nopen(path)\n"
    assert list(writes_of(ast.parse(good + "figure.savefig(buffer)"))) == []


def test_the_module_needs_no_torch() -> None:
    code = "import sys, mmtrain.io.run_files; assert 'torch' not in sys.modules and 'PIL' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_a_part_of_the_same_name_never_collides(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "a") as one, atomic_write(tmp_path / "a") as other:
        assert one != other and one.parent == tmp_path
        one.write_text("one")
        other.write_text("other")
    assert (tmp_path / "a").read_text() == "one"
    assert atomic_files._is_alive(os.getpid())
