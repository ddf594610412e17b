"""The Trainer of a run: strategy, precision, and keys that go to Lightning as they are."""

import pytest
import torch
from pytorch_lightning import Trainer
from pytorch_lightning.strategies import DDPStrategy

from mmtrain.build import check_parts, compose
from mmtrain.errors import ConfigError
from mmtrain.training.trainer import build_trainer, trainer_options


def test_gradients_of_ddp_stand_in_its_buckets() -> None:
    trainer = Trainer(**trainer_options(compose(["trainer=ddp", "trainer.accelerator=cpu"])))
    assert isinstance(trainer.strategy, DDPStrategy)
    assert trainer.strategy._ddp_kwargs == {"gradient_as_bucket_view": True}
    assert trainer.num_devices == 2


@pytest.mark.parametrize("tf32", [True, False])
def test_products_of_float32_have_all_their_digits_unless_told(tf32: bool, tmp_path: object) -> None:
    try:
        build_trainer(compose([f"run_dir={tmp_path}", f"trainer.tf32={tf32}"]), monitor=None, resume_step=None)
        assert torch.backends.cudnn.allow_tf32 is tf32
        assert torch.get_float32_matmul_precision() == ("high" if tf32 else "highest")
    finally:
        torch.set_float32_matmul_precision("highest")


def test_a_key_of_lightning_that_no_file_has_is_passed_on(tmp_path: object) -> None:
    trainer = build_trainer(
        compose([f"run_dir={tmp_path}", "+trainer.inference_mode=false"]), monitor=None, resume_step=None
    )
    assert trainer.test_loop.inference_mode is False


def test_there_is_one_profiler(tmp_path: object) -> None:
    cfg = compose([f"run_dir={tmp_path}", "trainer.profile=true", "+trainer.profiler=simple"])
    with pytest.raises(ConfigError, match=r"^trainer\.profiler=simple: trainer\.profile=true sets the profiler"):
        check_parts(cfg)
