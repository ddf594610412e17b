"""What to type instead, for keys, options and words that other programs have and mmtrain does not."""

import ast
import difflib
import importlib.util
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import yaml

from mmtrain.config.compose import config_dir
from mmtrain.config.signatures import parameters_of
from mmtrain.data.tables.columns import USUAL_NAMES

# Names in other programs, by the last word of the key, and what to write here; {value} is the given value.
ELSEWHERE: Mapping[str, str] = {
    **dict.fromkeys(("epochs", "num_epochs", "num_train_epochs", "n_epochs"), "trainer.max_epochs=N"),
    **dict.fromkeys(("gpus", "num_gpus", "n_gpus", "gpu"), "trainer=gpu, or trainer=ddp trainer.devices=N for several"),
    **dict.fromkeys(
        (
            "path",
            "root",
            "files",
            "folder",
            "data_dir",
            "data_path",
            "data_root",
            "dataset",
            "train_data",
            "train_file",
        ),
        "data=files data.root={value}",
    ),
    **dict.fromkeys(("workers", "num_proc"), "data.num_workers=N"),
    **dict.fromkeys(("output_dir", "out_dir", "save_dir", "output"), "run_dir=DIR"),
    **dict.fromkeys(("ckpt", "ckpt_path", "pretrained", "load_from"), "init_from=FILE, or resume=FILE to continue"),
    **dict.fromkeys(("learning_rate", "base_lr"), "optimizer.lr=X"),
    **dict.fromkeys(("wd",), "optimizer.weight_decay=X"),
    **dict.fromkeys(
        ("model", "backbone", "arch", "vision_tower"), "encoder=NAME, or encoder/image=NAME for one modality"
    ),
    **dict.fromkeys(
        ("accumulate", "accumulation", "grad_accum", "gradient_accumulation_steps", "accumulation_steps"),
        "trainer.accumulate_grad_batches=N",
    ),
    **dict.fromkeys(("n_trials", "num_trials", "trials"), "hydra.sweeper.n_trials=N, with -m hydra/sweeper=optuna"),
    **dict.fromkeys(("nodes", "nnodes"), "trainer.num_nodes=N"),
    **dict.fromkeys(("fp16", "amp"), "trainer.precision=16-mixed"),
    **dict.fromkeys(("bf16",), "trainer.precision=bf16-mixed"),
}
TABLES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".arrow")
# families of pretrained models, with an example of each
_PRETRAINED: Mapping[str, str] = {
    "clip": "openai/clip-vit-base-patch16",
    "siglip": "google/siglip2-base-patch16-224",
    "dino": "facebook/dinov2-base",
}
_TWO_TOWERS = ("clip", "siglip")


def default_lists() -> dict[str, list[str]]:
    """Groups that accept several options, with the default options."""
    defaults = yaml.safe_load((config_dir() / "train.yaml").read_text(encoding="utf-8"))["defaults"]
    entries = [entry for entry in defaults if isinstance(entry, dict)]
    return {group: chosen for entry in entries for group, chosen in entry.items() if isinstance(chosen, list)}


def suggest_key(key: str, value: str, groups: Mapping[str, Sequence[str]]) -> str | None:
    """What to write for a key of other programs.

    Args:
        key: such as epochs, or use_wandb.
        value: the value for it.
        groups: every group with its options.
    """
    above, _, name = key.rpartition(".")
    if above == "data.columns":
        usual = next((known for known, names in USUAL_NAMES.items() if name in names), None)
        return f"{key.replace(name, usual)}={value}" if usual else None
    option = name.removeprefix("use_")
    for group, chosen in default_lists().items():
        if option in groups[group] and option not in chosen:
            return f"{group}=[{','.join([*chosen, option])}]"
    known = ELSEWHERE.get(name)
    return None if known is None else known.format(value=value or "DIR")


def suggest_option(group: str, value: str, groups: Mapping[str, Sequence[str]]) -> str | None:
    """What to write for an option that a group does not have and that is not a misspelling.

    Args:
        group: such as encoder.
        value: the requested option.
        groups: every group with its options.
    """
    word = value.lower()
    if group == "data" and (Path(value).exists() or not nearest(value, groups[group])):
        folder = Path(value).parent if Path(value).is_file() else value if Path(value).is_dir() else "DIR"
        return f"your own tables are data=files data.root={folder}"
    if word in ("none", "no", "off", "false") and group == "fusion":
        return "~fusion removes it; then each task reads one modality, such as task.classification.input=image"
    if group == "optimizer":
        return _of_torch(word)
    if group != "encoder" and not group.startswith("encoder/"):
        return None
    family = next((name for name in _PRETRAINED if word.startswith(name)), None)
    if family is not None:
        if group == "encoder" and family in _TWO_TOWERS:
            return f"a complete pair is encoder=clip encoder.pretrained={_PRETRAINED[family]}"
        tower = "image" if group == "encoder" else group.removeprefix("encoder/")
        chosen = f"encoder/{tower}=huggingface encoder.{tower}.pretrained={_PRETRAINED[family]}"
        return f"a pretrained encoder is {chosen}"
    having = [g for g in groups if g.startswith("encoder/") and word in groups[g]]
    return f"did you mean {' or '.join(f'{g}={word}' for g in having)}?" if having else None


def _of_torch(word: str) -> str | None:
    """A class of torch.optim, and the keys of the current optimizer that it does not take."""
    spec = importlib.util.find_spec("torch")  # imports nothing, because the name has no dot
    path = None if spec is None or spec.origin is None else Path(spec.origin).parent / "optim" / f"{word}.py"
    if path is None or not word.isidentifier() or not path.is_file():
        return None
    classes = [n.name for n in ast.parse(path.read_bytes()).body if isinstance(n, ast.ClassDef)]
    name = next((n for n in classes if n.lower() == word), None)
    if name is None:
        return None
    taken = parameters_of(f"torch.optim.{word}.{name}")
    removed = [f"~optimizer.{key}" for key in ("betas", "eps", "weight_decay", "fused") if key not in taken]
    more = ["+optimizer.momentum=0.9"] if "momentum" in taken else []
    return f"for a class of torch.optim, set optimizer._target_=torch.optim.{' '.join([name, *removed, *more])}"


def split_words(words: Sequence[str], is_override: Iterable[bool]) -> Iterator[tuple[str, str]]:
    """Overrides that a space has split, with what to write instead; then words that are not overrides.

    Args:
        words: of the command line.
        is_override: for each word, whether it is an override.
    """
    waiting = list(zip(words, is_override, strict=True))
    while waiting:
        word, right = waiting.pop(0)
        pieces = [word]
        while waiting and not waiting[0][1] and _continues_value("".join(pieces), waiting[0][0]):
            pieces.append(waiting.pop(0)[0])
        if len(pieces) > 1:
            key, _, value = "".join(pieces).partition("=")
            listed = f"[{value}]" if key in default_lists() and "," in value and not value.startswith("[") else value
            yield " ".join(pieces), f"a space ends an override\n    fix: write {key}={listed}"
        elif not right:
            yield word, f"not an override\n    fix: {_suggest_word(word)}"


def _continues_value(begun: str, word: str) -> bool:
    """Whether the next word continues the value of a split override."""
    is_open = any(begun.count(left) > begun.count(right) for left, right in ("[]", "{}", "()"))
    if re.match(r"[+~]*[\w./@]+=", begun):
        return is_open or begun.endswith(("=", ",")) or word.startswith(",")
    return re.fullmatch(r"[+~]*[\w./@]+", begun) is not None and word.startswith("=")


def _suggest_word(word: str) -> str:
    """The likely meaning of a word that is not an override: a folder, a table, a checkpoint."""
    path, match = Path(word), re.fullmatch(r"([+~]*[\w./@]+)=(.+)", word)
    if match is not None:
        return _quoted(match[1], match[2])
    if word.endswith(".ckpt"):
        return f"write init_from={word} to start from its weights, or resume={word} to continue"
    if word.endswith(TABLES):
        return f"write data=files data.root={path}, or the folder that contains it with the other splits"
    if word and re.fullmatch(r"[\w./~-]+", word) and ("/" in word or path.is_dir()):
        return f"write data=files data.root={word}, if it contains your data"
    return "write key=value, such as trainer.max_epochs=3, with quotes around spaces and brackets"


def _quoted(key: str, value: str) -> str:
    """A value that Hydra would read differently."""
    if value.count("[") == value.count("]") + 1:
        return f"write {key}={value}], with the closing bracket"
    if re.fullmatch(r"~/[\w./-]*", value):
        key = "data=files data.root" if key == "data" else key
        return f"write {key}=$HOME{value[1:]}, because Hydra does not read a ~ as the home folder"
    return f"write '{key}=\"{value}\"', with both kinds of quotes around these characters"


def nearest(word: str, known: Sequence[str]) -> list[str]:
    """Options that are spelled similarly, that begin with the word, or that contain it as one of their words."""
    near = [*difflib.get_close_matches(word, known, n=1), *(name for name in known if name.startswith(word))]
    return near or [name for name in known if word in name.split("_")]
