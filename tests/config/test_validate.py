"""A command line that cannot be composed: which override or file is wrong, the nearest name, and the fix."""

from pathlib import Path

import pytest
import yaml

from mmtrain.config.compose import config_dir, keep_last_overrides
from mmtrain.config.validate import faults_of, with_overrides_of_run
from tests.tiny import make_fetched_folders


@pytest.fixture(autouse=True)
def fetched(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every data set that a script fetches is there."""
    make_fetched_folders(tmp_path_factory.mktemp("cache"), monkeypatch)


def faults(*overrides: str, extra: str | None = None, multirun: bool = False) -> list[str]:
    return faults_of(config_dir(), extra, list(overrides), multirun=multirun)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's own folder, which is the working folder and has conf/."""
    (tmp_path / "conf").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(home: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (home / "conf" / name).parent.mkdir(parents=True, exist_ok=True)
        (home / "conf" / name).write_text(content)


# ------------------------------------------------------------------ overrides

NAMES = [
    ("encoder=vitt", "encoder has no option vitt\n    fix: did you mean encoder=vit? The options are "),
    (
        "encoder/image=vitt",
        "encoder/image has no option vitt\n    fix: did you mean encoder/image=vit? The options are ",
    ),
    ("fusion=zzz", "fusion has no option zzz\n    fix: the options are "),
    ("task=[contrastive,matchin]", "task has no option matchin\n    fix: did you mean task=matching? The options are "),
    ("hydra/launcher=zzz", "hydra/launcher has no option zzz\n    fix: the options are basic"),
    (
        "hydra/launcher=slurm",
        "hydra/launcher has no option slurm\n    fix: did you mean hydra/launcher=submitit_slurm?",
    ),
    ("trainer.accumulate=4", "there is no key trainer.accumulate\n    fix: write trainer.accumulate_grad_batches=N"),
    ("n_trials=5", "there is no key n_trials\n    fix: write hydra.sweeper.n_trials=N, with -m hydra/sweeper=optuna"),
    ("hydra.sweep.dirs=x", "there is no key hydra.sweep.dirs\n    fix: did you mean hydra.sweep.dir or "),
    ("encodr/image=vit", "there is no group encodr/image\n    fix: did you mean encoder/image? the groups are "),
    ("+encoder/smell=nose", "there is no group encoder/smell\n    fix: "),
    ("enocder=vit", "there is no key enocder\n    fix: did you mean encoder?"),
    ("trainer.max_epoch=3", "there is no key trainer.max_epoch\n    fix: did you mean trainer.max_epochs or "),
    (
        "encoder.image.patchsize=8",
        "there is no key encoder.image.patchsize\n    fix: did you mean encoder.image.patch_size",
    ),
    ("lowercase=false", "there is no key lowercase\n    fix: did you mean data.inputs.text.lowercase or "),
    ("~optimizer.lrr", "there is no key optimizer.lrr\n    fix: did you mean optimizer.lr"),
    ("qqqq=1", "there is no key qqqq\n    fix: `python train.py --cfg job` shows every key"),
    (
        "data.root=.",
        "there is no key data.root\n    fix: write data=files data.root=. for your own tables\n    choose",
    ),
    (
        "encoder.image.name=resnet18",
        "there is no key encoder.image.name\n    fix: choose encoder/image=open_clip, resnet",
    ),
    (
        "data.columns.mood=feeling",
        "there is no key data.columns.mood\n    fix: add a class to predict with +target@data.targets.mood=class"
        " +data.columns.mood=feeling task.classification.target=mood",
    ),
    (
        "data.train=a.csv",
        "there is no key data.train\n    fix: choose data=files, shards, which has this key; tables of your own:"
        " data=files data.train=FILE data.val=FILE data.test=FILE",
    ),
    (
        "~callbacks.early_stopping",
        "there is no key callbacks.early_stopping\n    fix: remove ~callbacks.early_stopping, because nothing of that"
        " name is chosen",
    ),
    ("data.columns.picture=a", "there is no key data.columns.picture\n    fix: write data.columns.image=a"),
    ("+dim=3", "dim already exists\n    fix: set it with dim=3"),
]


def test_the_column_of_an_added_target_is_a_new_key() -> None:
    added = "+target@data.targets.mood=class"
    assert faults(added, "data.columns.mood=feeling") == [
        "data.columns.mood=feeling: there is no key data.columns.mood\n    fix: write +data.columns.mood=feeling"
    ]
    (fault,) = faults("data.columns.lable=mood")
    assert "\n    fix: did you mean data.columns.label" in fault and "+target@data.targets.lable=class" in fault
    (fault,) = faults(added, "data.columns.mood=mood")
    assert fault.endswith("write +data.columns.mood=mood; by default, the column mood is read")


def test_what_is_not_there_is_said_with_the_nearest_name_all_at_once() -> None:
    """`test_rules.py` has what composes and is wrong."""
    overrides = [override for override, _ in NAMES]
    first = overrides.index("hydra/launcher=zzz")  # of a key that is given twice the last counts
    results = [*faults(overrides[first]), *faults(*overrides[:first], *overrides[first + 1 :])]
    assert len(results) == len(NAMES)
    for override, fault in NAMES:
        assert any(line.startswith(f"{override}: {fault}") for line in results), (override, results)


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("encoder.image.depth=2", "~encoder.image"),
        ("encoder.image.depth=2", "encoder.image={_target_:mmtrain.encoders.image.cnn.CNN}"),
        ("fusion=concat", "~fusion"),
    ],
)
def test_an_override_that_another_one_undoes_is_named(earlier: str, later: str) -> None:
    assert faults(earlier, "seed=1", later) == [
        f"{earlier}: no effect, because {later} replaces it\n    fix: remove one of them"
    ]


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("dim=3", "dim=64"),
        ("encoder=nothing", "encoder=vit"),
        ("encoder@x=vit", "encoder@x=resnet"),
        ("+trainer.inference_mode=1", "++trainer.inference_mode=false"),
        ("+trainer.inference_mode=1", "trainer.inference_mode=true"),
    ],
)
def test_of_a_key_that_is_given_twice_the_last_counts(earlier: str, later: str) -> None:
    assert faults(earlier, "seed=1", later) == faults("seed=1", *keep_last_overrides([earlier, later])[0])
    kept, notes = keep_last_overrides([earlier, "seed=1", later])
    assert kept[0] == "seed=1" and kept[1].lstrip("+") == later.lstrip("+")
    assert notes == [f"{earlier}: replaced by {later}, because the last value of a key is used"]
    assert keep_last_overrides([earlier, earlier]) == ([earlier], []) and keep_last_overrides(["~dim", "dim"])[1] == []


def test_what_is_said_twice_or_before_an_option_is_chosen_holds() -> None:
    assert (
        faults("data.batch_size=8", "encoder.image.depth=1", "data=digits", "encoder=vit", "task=[classification]")
        == []
    )
    assert faults("dim=64", "seed=1", "dim=64", "data.inputs.image.size=32", "data.inputs.image.crop_scale=1.0") == []


def test_a_key_of_another_option_is_found_below_a_set_of_encoders() -> None:
    assert faults("encoder=resnet", "encoder.image.patch_size=8") == [
        "encoder.image.patch_size=8: there is no key encoder.image.patch_size\n"
        "    fix: choose encoder/image=vit, which has this key"
    ]


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("fusion=null", "null is not an option\n    fix: remove the group with ~fusion; the options are "),
        ("fusion=3", "3 is not an option\n    fix: remove the group with ~fusion; the options are "),
        ("encoder=null", "null is not an option\n    fix: choose one with encoder=NAME; the options are "),
        ("task=[1]", "[1] is not an option\n    fix: choose none with task=[]; the options are "),
        ("~task", "the group cannot be removed this way\n    fix: choose none with task=[]; the options are "),
        (
            "~fusion=concat",
            "the group cannot be removed this way\n    fix: remove the group with ~fusion; the options are ",
        ),
        ("+fusion=concat", "an option of fusion is already chosen\n    fix: choose another with fusion=concat"),
    ],
)
def test_a_group_is_given_an_option(override: str, fault: str) -> None:
    (result,) = faults(override)
    assert result.startswith(f"{override}: {fault}")


def test_an_encoder_whose_inside_a_recipe_chooses_is_left_out_as_a_key() -> None:
    (fault,) = faults("experiment=moving_qa", "~encoder/video")
    assert fault.startswith(
        "~encoder/video: the group cannot be removed this way\n"
        "    fix: remove the group with ~encoder.video; the options are "
    )
    assert faults("experiment=moving_qa", "~encoder.video") == []


def test_what_is_no_override_is_said_before_anything_is_composed() -> None:
    wrong = ["=3", "foo", "a b=3", "trainer.max_epochs", ""]
    fix = "write key=value, such as trainer.max_epochs=3, with quotes around spaces and brackets"
    assert faults("encoder=vitt", *wrong) == [f"{override}: not an override\n    fix: {fix}" for override in wrong]


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["logger=csv,", "wandb"], "logger=csv, wandb: a space ends an override\n    fix: write logger=[csv,wandb]"),
        (["task=[contrastive,", "matching]"], "write task=[contrastive,matching]"),
        (["optimizer.betas=[0.9,", "0.98]", "seed=1"], "write optimizer.betas=[0.9,0.98]"),
        (
            ["trainer.max_epochs", "=", "3"],
            "trainer.max_epochs = 3: a space ends an override\n    fix: write trainer.max_e",
        ),
        (
            ["task=[contrastive,matching"],
            "not an override\n    fix: write task=[contrastive,matching], with the closing bracket",
        ),
        (["data.root=~/mine"], "write data.root=$HOME/mine"),
        (["data.root=mine_(1)"], "write 'data.root=\"mine_(1)\"', with both kinds of quotes"),
        (["optimizer.lr=", "1e-3"], "write optimizer.lr=1e-3"),
    ],
)
def test_an_override_that_a_space_has_cut_is_written_whole(words: list[str], fault: str) -> None:
    (result,) = faults(*words)
    assert fault in result


def test_a_word_alone_may_be_a_place(home: Path) -> None:
    (home / "mine").mkdir()
    for word, fix in {
        "mine": "data=files data.root=mine, if it contains your data",
        "./mine/": "data=files data.root=./mine/, if it contains your data",
        "mine/train.csv": "data=files data.root=mine/train.csv, or the folder that contains it with the other splits",
        "outputs/a.ckpt": "init_from=outputs/a.ckpt to start from its weights, or resume=outputs/a.ckpt to continue",
    }.items():
        assert faults(word) == [f"{word}: not an override\n    fix: write {fix}"]
    assert "your own tables are data=files data.root=mine" in faults("data=mine")[0]
    assert "your own tables are data=files data.root=DIR\n" in faults("data=yours")[0]


@pytest.mark.parametrize(
    ("override", "fix"),
    [
        ("fusion=none", "~fusion removes it; then each task reads one modality, such as task.classification.input="),
        (
            "encoder=siglip",
            "a complete pair is encoder=clip encoder.pretrained=google/siglip2-base-patch16-224",
        ),
        ("encoder/image=dinov3", "encoder/image=huggingface encoder.image.pretrained=facebook/dinov2-base\n"),
        ("encoder=bert", "did you mean encoder/text=bert?\n    the options are clap, clip, open_clip, resnet, vit"),
        (
            "optimizer=sgd",
            "optimizer._target_=torch.optim.SGD ~optimizer.betas ~optimizer.eps +optimizer.momentum=0.9\n"
            "    the options are",
        ),
        (
            "optimizer=rmsprop",
            "optimizer._target_=torch.optim.RMSprop ~optimizer.betas ~optimizer.fused +optimizer.momentum=0.9",
        ),
        (
            "optimizer=adam",
            "optimizer=adamw? The options are adamw\n"
            "    for a class of torch.optim, set optimizer._target_=torch.optim.Adam",
        ),
    ],
)
def test_what_others_have_as_an_option_is_said_as_it_is_written_here(override: str, fix: str) -> None:
    (result,) = faults(override)
    assert fix in result


def test_the_optimizer_that_is_offered_is_a_good_one() -> None:
    assert (
        faults("optimizer._target_=torch.optim.SGD", "~optimizer.betas", "~optimizer.eps", "+optimizer.momentum=0.9")
        == []
    )
    assert faults("~fusion", "task.classification.input=image") == []


def test_faults_of_every_kind_are_said_together() -> None:
    wrong = ("encodr=vit", "encoder.text.num_heads=5", "fusion=crossattn", "trainer.max_epochs=ten", "seed=-1")
    messages = faults(*wrong)
    assert len(messages) == len(wrong)
    assert all(any(override in fault for fault in messages) for override in wrong)


def test_several_values_want_a_sweep() -> None:
    wrong = {
        "encoder=vit,resnet": "",  # one is chosen
        "logger=csv,wandb": ", or write 'logger=[csv,wandb]' for a list",
        "optimizer.lr=1e-3,1e-4": "",
        "optimizer.betas=0.9,0.98": ", or write 'optimizer.betas=[0.9,0.98]' for a list",
        "dim=choice(64,128)": "",
        "schedule=glob(*)": "",
    }
    expected = [f"{o}: several values are a sweep\n    fix: add -m to run each{fix}" for o, fix in wrong.items()]
    assert sorted(faults(*wrong)) == sorted(expected)


def test_a_value_that_must_be_given_is_asked_for() -> None:
    fix = "set data.root=DIR, the folder with train.jsonl (or train.csv, train.parquet ...)"
    fault = f"data.root: not set ({{}})\n    fix: {fix}"
    assert faults("data=files") == [fault.format("configs/data/files.yaml")]
    assert faults("data=files", "data.root=null") == [fault.format("override data.root=null")]


def test_an_interpolation_that_leads_nowhere_is_said_where_it_begins() -> None:
    """Not once more for every key that repeats it."""
    result = faults("dim=${widht}", "optimizer.lr=${oc.env:MMTRAIN_NO_SUCH}")
    assert result[0] == (
        "dim: Interpolation key 'widht' not found (override dim=${widht})\n"
        "    fix: correct the interpolation, or set dim=..."
    )
    assert len(result) == 2 and "Environment variable 'MMTRAIN_NO_SUCH' not found" in result[1]


def test_interpolations_in_a_circle_name_the_circle_only() -> None:
    assert faults("dim=${seed}", "seed=${dim}") == [
        "seed: Recursive interpolation detected (override seed=${dim})\n"
        "    fix: correct the interpolation, or set seed=...",
        "dim: Recursive interpolation detected (override dim=${seed})\n"
        "    fix: correct the interpolation, or set dim=...",
    ]


def test_what_others_read_is_missed_where_it_was_taken_out() -> None:
    result = faults("~data.inputs.text")
    assert result[0] == (
        "encoder.text.vocab_size: Interpolation key 'data.inputs.text.vocab_size' not found"
        " (override ~data.inputs.text)\n"
        "    fix: remove ~data.inputs.text, or set encoder.text.vocab_size=..."
    )
    alone = ["~data.inputs.text", "~encoder/text", "task=[classification]", "task.classification.input=image"]
    assert faults(*alone, "~encoder/dialogue") == []  # whose turns a text encoder reads
    assert "encoder.dialogue.text" in faults(*alone)[0]


# ----------------------------------------------------------------------- sweeps


def test_a_sweep_is_good_when_every_combination_is() -> None:
    assert faults("encoder=choice(vit,resnet)", "schedule=glob(cos*)", "dim=64,128", multirun=True) == []


def test_a_range_wants_a_sweeper_that_draws_from_it() -> None:
    assert faults("optimizer.lr=interval(0.1,1)", multirun=True) == [
        "optimizer.lr=interval(0.1,1): a range has infinitely many values\n"
        "    fix: add hydra/sweeper=optuna to sample from it, or list values: optimizer.lr=0.1,1.0"
    ]
    assert faults("optimizer.lr=interval(0.1,1)", "hydra/sweeper=optuna", multirun=True) == []
    assert faults("sweep=optimizer", "fusion=sum,concat", multirun=True) == []
    assert faults("sweep=architecture", multirun=True) == []


def test_both_ends_of_a_range_and_every_option_are_looked_at() -> None:
    result = faults("sweep=optimizer", "optimizer.lr=interval(-1,1)", "fusion=sum,conct", multirun=True)
    assert len(result) == 2 and result[0].startswith("optimizer.lr=-1.0: must be a number of at least 0")
    assert result[1].startswith("fusion=conct: fusion has no option conct\n    fix: did you mean fusion=concat?")


def test_a_search_wants_something_to_search() -> None:
    (fault,) = faults("hydra/sweeper=optuna", "hydra.sweeper.n_trials=3", multirun=True)
    assert fault.startswith("hydra/sweeper=optuna: there is nothing to search\n")
    (fault,) = faults("sweep=optimizer", "+hydra.sweeper.objectives.parameters=down", multirun=True)
    assert fault == "hydra.sweeper.objectives.parameters=down: not a direction\n    fix: write max or min"


def test_the_one_combination_that_is_wrong_is_named() -> None:
    assert faults("encoder=vit,resnt", multirun=True) == [
        "encoder=resnt: encoder has no option resnt\n"
        "    fix: did you mean encoder=resnet? The options are clap, clip, open_clip, resnet, vit"
    ]
    result = faults("encoder/image=resnet,vit", "data.inputs.image.size=60,64", multirun=True)
    assert result == [
        "encoder.image.image_size=60: not divisible by encoder.image.patch_size=16"
        " (override data.inputs.image.size=60)\n"
        "    fix: set encoder.image.patch_size to 15, or data.inputs.image.size to 64"
    ]


def test_what_is_wrong_in_every_combination_is_said_once() -> None:
    assert len(faults("schedule=constant,cosine", "fusion=zzz", multirun=True)) == 1


# --------------------------------------------------------- the user's own files


def test_a_folder_that_is_none_is_said(home: Path) -> None:
    (home / "file").touch()
    for name in ("nowhere", "file"):
        assert faults(extra=name) == [
            f"--config-dir {name}: not a folder\n    fix: name the folder that contains your YAML files"
        ]


def test_an_experiment_of_the_users_own_is_read_and_named(home: Path) -> None:
    recipe = "# @package _global_\ndefaults:\n  - override /encoder: resnet\n  - override /task: [contrastive]\n"
    write(home, {"experiment/mine.yaml": f"{recipe}dim: 64\n"})
    assert faults("experiment=mine", extra="conf") == []
    assert faults("~experiment", extra="conf") == []
    write(home, {"experiment/mine.yaml": f"{recipe}seed: -3\ntrainer:\n  max_epochs: soon\n"})
    assert faults("experiment=mine", extra="conf/") == [
        "seed=-3: must be an integer between 0 and 4294967295 (conf/experiment/mine.yaml)\n    fix: seed=0",
        "trainer.max_epochs=soon: must be an integer of at least -1 or null (conf/experiment/mine.yaml)\n"
        "    fix: trainer.max_epochs=26",
    ]
    (fault,) = faults("experiment=mien", extra="conf")
    assert fault.startswith(
        "experiment=mien: experiment has no option mien\n    fix: did you mean experiment=mine? The options are "
    )


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (
            "a: [1\nb: :",
            "fusion=mine: {}, line 2: not YAML: expected ',' or ']', but got ':'\n    fix: correct that line",
        ),
        ("a:\n\tb: 1", "fusion=mine: {}, line 2: not YAML: found character '\\t' that cannot start any token\n"),
        ("a: 1\na: 2", "fusion=mine: {}, line 2: not YAML: found duplicate key a\n    fix: correct that line"),
        ("a: ${", "fusion=mine: no viable alternative at input '${'"),
        ("3", "fusion=mine: Invalid loaded object type: int"),
        ("defaults: {concat: 1}", "fusion=mine: Invalid defaults list in 'fusion/mine', defaults must be a list"),
        (
            "defaults:\n  - concatt",
            "fusion=mine: In 'fusion/mine': Could not load 'fusion/concatt'.\n"
            "    fix: correct the defaults list that names it",
        ),
        (
            "defaults:\n  - /encoder/text@text: transformr",
            "fusion=mine: In 'fusion/mine': Could not find 'encoder/text/transformr'\n"
            "    fix: did you mean encoder/text/transformer?",
        ),
        (
            "dim: ${dims}",
            "fusion.dim: Interpolation key 'dims' not found (conf/fusion/mine.yaml)\n    fix: correct the inter",
        ),
        ("dim: ???", "fusion.dim: not set (conf/fusion/mine.yaml)\n    fix: set fusion.dim=..."),
        ("dim: 3", "fusion: _target_ is missing (conf/fusion/mine.yaml)\n    fix: set fusion._target_=package.module"),
    ],
)
def test_a_file_that_is_wrong_is_named(home: Path, content: str, fault: str) -> None:
    write(home, {"fusion/mine.yaml": content})
    (result,) = faults("fusion=mine", extra="conf")
    assert result.startswith(fault.replace("{}", str(home / "conf/fusion/mine.yaml")))


def test_a_file_that_is_not_chosen_is_not_looked_at(home: Path) -> None:
    write(home, {"fusion/mine.yaml": "a: [1"})
    assert faults(extra="conf") == []


def test_a_file_that_one_of_ours_hides_is_said(home: Path) -> None:
    write(home, {"fusion/concat.yaml": "_target_: mine.Concat\n", "fusion/cross_attn.yaml": "_target_: mine.Cross\n"})
    for extra in ("conf", str(home / "conf")):
        assert faults("fusion=concat", extra=extra) == [
            f"{extra}/fusion/concat.yaml: never read, because configs/fusion/concat.yaml comes first\n"
            "    fix: give it another name"
        ]


def test_a_folder_of_the_users_that_is_called_configs_is_told_from_ours(home: Path) -> None:
    (home / "conf").rename(home / "configs")
    (home / "configs/fusion").mkdir()
    (home / "configs/fusion/mine.yaml").write_text("dim: 3")
    (result,) = faults("fusion=mine", extra="configs")
    assert result.startswith("fusion: _target_ is missing (./configs/fusion/mine.yaml)")


# ------------------------------------------------------------ the run that is tested


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return recorded(tmp_path / "run", ["encoder=resnet", "trainer=ddp", "trainer.devices=2", "dim=64", "seed=3"])


def recorded(folder: Path, overrides: list[str]) -> Path:
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump({"dim": 64, "overrides": overrides}))
    return folder


def test_training_takes_no_overrides_of_another_run(run: Path) -> None:
    for overrides in ([f"run_dir={run}"], [f"run_dir={run}", "mode=fit", "resume=auto"], []):
        assert with_overrides_of_run(overrides) == (overrides, [])


@pytest.mark.parametrize("mode", ["test", "predict"])
def test_the_overrides_of_the_run_come_first(run: Path, mode: str) -> None:
    given = [f"mode={mode}", f"run_dir={run}", "data.eval_batch_size=8"]
    used, wrong = with_overrides_of_run(given)
    assert used == ["encoder=resnet", "trainer=ddp", "trainer.devices=2", "dim=64", "seed=3", *given]
    assert wrong == []


def test_the_command_line_replaces_what_the_run_said(run: Path) -> None:
    given = ["mode=test", f"run_dir='{run}'", "seed=4", "++dim=32"]
    used, _ = with_overrides_of_run(given)
    assert used == ["encoder=resnet", "trainer=ddp", "trainer.devices=2", *given]


def test_another_option_replaces_what_the_run_set_inside_the_group(run: Path) -> None:
    """`trainer.devices=2` belonged to the other trainer, as `data.root` would to other data."""
    given = ["mode=test", f"run_dir={run}", "trainer=cpu"]
    used, _ = with_overrides_of_run(given)
    assert used == ["encoder=resnet", "dim=64", "seed=3", *given]
    assert "trainer.devices=2" in with_overrides_of_run([*given[:2], "trainer.max_epochs=3"])[0]


def test_what_only_the_training_was_told_is_left_out(tmp_path: Path) -> None:
    own = ["mode=fit", "run_dir=elsewhere", "resume=auto", "init_from=a.ckpt"]
    run = recorded(tmp_path / "run", [*own, "~fusion", "+callbacks.x=1", "callbacks=[]", "logger=[csv,wandb]"])
    assert with_overrides_of_run(["mode=test", f"run_dir={run}"]) == (
        ["~fusion", "callbacks=[]", "mode=test", f"run_dir={run}"],
        [],
    )


def test_what_a_run_is_compared_with_is_kept(tmp_path: Path) -> None:
    """Though it followed from `init_from`, which is left out."""
    run = recorded(tmp_path / "run", ["task=[scst]", "init_from=a b.ckpt"])
    record = {"overrides": ["task=[scst]", "init_from=a b.ckpt"], "task": {"scst": {"reference": "a b.ckpt"}}}
    (run / "config.yaml").write_text(yaml.safe_dump(record))
    given = ["mode=test", f"run_dir={run}"]
    assert with_overrides_of_run(given) == (["task=[scst]", "task.scst.reference='a b.ckpt'", *given], [])


@pytest.mark.parametrize("key", ["resume", "init_from"])
def test_a_checkpoint_says_whose_run_it_is(run: Path, key: str) -> None:
    given = ["mode=test", f"{key}={run}/checkpoints/best.ckpt"]
    used, wrong = with_overrides_of_run(given)
    assert wrong == [] and used[-3:] == [*given, f"run_dir={run}"]


MEND = "    fix: set run_dir to the folder of a training run, such as run_dir=outputs/2026-01-31/12-00-00"


def test_a_run_is_needed(tmp_path: Path) -> None:
    for more in ([], ["resume=auto"], ["init_from=null"]):
        _, wrong = with_overrides_of_run(["mode=test", *more])
        assert wrong == [f"mode=test: needs a trained run\n{MEND}"]
    _, wrong = with_overrides_of_run(["mode=predict", f"run_dir={tmp_path}"])
    assert wrong == [
        f"run_dir={tmp_path}: not the folder of a run, because it has no config.yaml (mode=predict)\n{MEND}"
    ]


@pytest.mark.parametrize("content", [b"", b"a: [", b"dim: 3", b"- 1", b"overrides: 3", b"overrides:", b"\xff\xfe\x00"])
def test_a_record_that_is_none_is_said(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.yaml").write_bytes(content)
    _, wrong = with_overrides_of_run(["mode=test", f"run_dir={tmp_path}"])
    (said,) = wrong
    problem = " is damaged: " if content in (b"", b"\xff\xfe\x00") else ": not written by mmtrain: "
    assert said.startswith(f"{tmp_path / 'config.yaml'}{problem}") and said.endswith(f"\n{MEND}")


def test_an_experiment_whose_overrides_are_not_last_is_explained(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    lines = ["# @package _global_", "defaults:", "  - override /task: []", "  - /task@task.mood: classification"]
    (tmp_path / "experiment" / "mine.yaml").write_text("\n".join(lines))
    message = "experiment=mine: a defaults list has lines after its `override` lines; put the `override` lines last"
    assert faults("experiment=mine", extra=str(tmp_path)) == [message]
