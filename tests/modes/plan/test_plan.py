"""A plan against the run that it plans: parameters and operations are equal, and so is what tensors take."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from pytorch_lightning import seed_everything

from mmtrain.build import build_data, build_lit, build_model, compose
from mmtrain.data.module import DataModule
from mmtrain.errors import ConfigError
from mmtrain.modes.plan.example import longest_example
from mmtrain.modes.plan.find import candidate_sizes, repeat_rows
from mmtrain.modes.plan.plan import Sharing, make_plan
from mmtrain.modes.plan.simulate import simulator, tensors_of, tensors_of_batch
from mmtrain.modes.plan.typical import typical_flops
from mmtrain.modes.plan.watch import OnDevice, Watch, flop_counter, without_content
from mmtrain.training.fsdp.shard import blocks_of, matrices_of
from mmtrain.training.memory import workspace_of
from mmtrain.types import Batch
from mmtrain.units import parse_bytes
from tests.tiny import TINY_MODEL, make_tables

TASKS = "classification,contrastive,matching,masked_text,masked_fusion,masked_image,captioning"
CONFIGURATIONS = [
    f"task=[{TASKS}]",
    "encoder/text=gru task=[classification]",
    "encoder/image=cnn task=[classification]",
    "encoder/image=resnet fusion=concat task=[classification]",
    "encoder.image.checkpointing=true encoder.image.depth=3 task=[classification]",
    "balance=mgda task=[classification,contrastive]",
    "fusion=q_former task=[classification]",
    "fusion=mult task=[classification]",
    "encoder.image.freeze=true task=[classification]",
]


@pytest.fixture(autouse=True)
def _hydra() -> Iterator[None]:
    yield
    GlobalHydra.instance().clear()


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tables(tmp_path_factory.mktemp("tables") / "data")


def read(tables: Path, folder: Path, *overrides: str) -> tuple[Any, DataModule]:
    other = any(o.startswith(("encoder=", "encoder/image=")) for o in overrides)
    tiny = [o for o in TINY_MODEL if not (other and o.startswith("encoder.image."))]
    cfg = compose(["data=files", f"data.root={tables}", *tiny, f"run_dir={folder}", *overrides])
    data = build_data(cfg)
    data.read(folder, training=True)
    return cfg, data


@pytest.mark.parametrize("overrides", CONFIGURATIONS)
def test_a_step_without_content_is_the_step(tables: Path, tmp_path: Path, overrides: str) -> None:
    cfg, data = read(tables, tmp_path, *overrides.split())
    example = longest_example(data)
    rows = 24
    simulated = simulator(cfg, data, example, device="cpu")
    planned = simulated.step(rows)

    seed_everything(0, verbose=False)
    lit = build_lit(cfg, build_model(cfg, data))
    lit.model.train()
    full = whole(example)
    batch = repeat_rows(full, rows)
    learning = [p for p in lit.parameters() if p.requires_grad]
    optimizer = lit.make_optimizer([{"params": learning}])
    for parameter in learning:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    watch, counter = Watch(answers=False), flop_counter()
    watch.hold("weights", tensors_of(lit.model))
    watch.hold("data", tensors_of_batch(batch))
    watch.hold("optimizer", (t for state in optimizer.state.values() for t in state.values()))
    with watch, counter:
        replace(simulated, lit=lit).forward_and_backward([batch])
        optimizer.step()

    assert [(n, p.shape) for n, p in simulated.lit.named_parameters()] == [
        (n, p.shape) for n, p in lit.named_parameters()
    ]
    assert planned.flops == pytest.approx(counter.get_total_flops(), rel=0.05)
    averages = planned.memory.get("averages", 0)
    assert planned.peak - averages == pytest.approx(watch.peak.total(), rel=0.10)
    assert planned.memory["weights"] == pytest.approx(watch.peak["weights"], rel=1e-3)
    assert planned.memory.get("optimizer") == pytest.approx(watch.peak["optimizer"] or None, rel=1e-3)


def whole(batch: Batch) -> Batch:
    """The rows that have everything."""
    present = torch.stack([*batch.present.values(), *batch.labelled.values()]).all(dim=0).nonzero().squeeze(1)
    assert len(present)
    made: Batch = batch.map(lambda t: t[present])
    made.ids = [batch.ids[row] for row in present.tolist()]
    made.inputs = {
        m: made.inputs[m]
        if p.mask is None
        else p._replace(values=made.inputs[m].values, mask=torch.ones_like(made.inputs[m].mask))
        for m, p in batch.inputs.items()
    }
    return made


def test_the_plan_of_a_run(tables: Path, tmp_path: Path) -> None:
    cfg, data = read(tables, tmp_path, "plan.samples_per_second=22", "trainer.max_epochs=3")
    plan = make_plan(cfg, data)
    assert plan["run"] == {
        "steps_per_epoch": 6,
        "steps": 18,
        "samples": 132,
        "samples_per_second": 22,
        "seconds": 6.0,
    }
    assert plan["batch"]["rows"] == 8
    assert plan["batch"]["largest_rows"] == 44  # more than there are would be no step
    assert sum(v for k, v in plan["memory"].items() if k != "total") == plan["memory"]["total"]
    assert json.loads(json.dumps(plan)) == plan


def test_the_largest_batch_fits_and_the_next_does_not(tables: Path, tmp_path: Path) -> None:
    cfg, data = read(tables, tmp_path, "task=[classification]")
    example = longest_example(data)
    simulated = simulator(cfg, data, example, device="cpu")
    memory = 2 * simulated.step(20).peak
    cfg.plan.memory = memory
    largest = make_plan(cfg, data)["batch"]["largest_rows"]
    assert 18 <= largest <= 20
    cfg.plan.memory = 1000
    assert make_plan(cfg, data)["batch"]["largest_rows"] == 0


def test_devices_share_what_they_hold(tables: Path, tmp_path: Path) -> None:
    cfg, data = read(tables, tmp_path)
    simulated = simulator(cfg, data, longest_example(data), device="cpu")
    step = simulated.step(4)
    model = simulated.lit.model
    alone = Sharing(model, 1, sharded=False, in_16_bits=False)
    copied = Sharing(model, 4, sharded=False, in_16_bits=False)
    shared = Sharing(model, 4, sharded=True, in_16_bits=False)
    size = sum(p.nbytes for p in model.parameters())
    assert alone.network == 0
    assert copied.network == 2 * size * 3 // 4
    blocks = sum(p.nbytes for block in blocks_of(model) for p in matrices_of(block))
    assert 0 < blocks < size
    assert shared.network == (3 * blocks + 2 * (size - blocks)) * 3 // 4
    assert copied.memory(step)["communication"] == 0 and copied.memory(step)["gradients"] == size
    kept = blocks / 4 + size - blocks
    assert shared.memory(step)["weights"] == pytest.approx(step.memory["weights"] * kept / size, rel=1e-3)
    assert shared.memory(step)["gradients"] == pytest.approx(kept, rel=1e-3)
    assert shared.memory(step)["optimizer"] == pytest.approx(step.memory["optimizer"] * kept / size, rel=1e-3)


def test_a_gpu_gives_room_to_its_libraries(tables: Path, tmp_path: Path) -> None:
    cfg, data = read(tables, tmp_path, "plan.accelerator=gpu", "task=[classification]")
    assert make_plan(cfg, data)["memory"]["workspace"] == workspace_of("cuda") > 8 * 2**20
    cfg.plan.accelerator = "cpu"
    assert make_plan(cfg, data)["memory"]["workspace"] == 0


def test_what_dropout_keeps_is_a_byte_on_a_gpu_and_a_factor_elsewhere() -> None:
    sizes = {}
    for device in ("cpu", "cuda"):
        watch = Watch()
        with without_content(), OnDevice(device, None, watch), watch:
            tokens = torch.empty(100, 100, requires_grad=True)
            dropped = torch.nn.functional.dropout(tokens, 0.1)
        sizes[device] = watch.live.total()
        del tokens, dropped
    assert sizes == {"cpu": 3 * 40_000, "cuda": 2 * 40_000 + 10_000}


def test_mixed_precision_halves_activations(tables: Path, tmp_path: Path) -> None:
    sized = ["encoder.image.depth=6", "dim=64"]
    results = []
    for precision in ("32", "bf16-mixed"):
        cfg, data = read(tables, tmp_path / precision, f"trainer.precision={precision}", *sized)
        results.append(simulator(cfg, data, longest_example(data), device="cuda").step(64))
    full, half = results
    assert 0.4 < half.activations / full.activations < 0.8
    assert half.memory["weights"] == full.memory["weights"]
    assert half.memory["casts"] > 0
    assert half.flops == full.flops


def test_a_size_that_is_none_is_explained(tables: Path, tmp_path: Path) -> None:
    cfg, data = read(tables, tmp_path, "plan.memory=lots")
    with pytest.raises(
        ConfigError, match=r"plan.memory=lots: not a size\n    fix: set plan.memory to a size such as 80GB"
    ):
        make_plan(cfg, data)
    assert parse_bytes("2 GiB") == 2 * 2**30


@pytest.mark.parametrize(("limit", "guess"), [(1, 1), (7, 100), (57, 60), (600, 4), (999, 999)])
def test_sizes_are_tried_until_the_bounds_meet(limit: int, guess: int) -> None:
    tries = candidate_sizes(0, 1000, guess)
    size, seen = next(tries), []
    try:
        while True:
            seen.append(size)
            size = tries.send(size <= limit)
    except StopIteration:
        pass
    fitting = max(s for s in seen if s <= limit)
    assert limit - fitting <= max(1, limit * 0.03)
    assert len(seen) < 16
    assert len(set(seen)) == len(seen)


def test_operations_are_those_of_usual_sentences(tables: Path, tmp_path: Path) -> None:
    cfg, data = read(tables, tmp_path, "encoder/text=gru", "task=[classification]")
    simulated = simulator(cfg, data, longest_example(data), device="cpu")
    longest = simulated.step(8).flops
    length = simulated.example.inputs["text"].values.shape[1]
    assert typical_flops(simulated, {"text": [length] * 5}, 8) == longest
    some = typical_flops(simulated, {"text": [1, 0, length]}, 1000)  # padded to the longest, which the GRU skips
    less = typical_flops(simulated, {"text": [1, 1, 1]}, 8)
    assert less < some < typical_flops(simulated, {"text": [length]}, 1000)
    assert simulated.step(8).flops == longest
