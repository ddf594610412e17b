"""The replacement of missing modalities: its two kinds, and what each starts from."""

import pytest
import torch

from mmtrain.layers.vectors import Absent


def test_learned_vectors_start_at_the_neutral_element() -> None:
    absent = Absent(["text", "image"], 3, missing="learned", neutral=1.0)
    present, vector = torch.tensor([[True], [False]]), torch.randn(2, 3)
    out = absent("text", vector, present)
    assert torch.equal(out, torch.stack([vector[0], torch.ones(3)]))
    out.sum().backward()
    assert absent.learned is not None and torch.equal(absent.learned["text"].grad, torch.ones(3))
    assert absent.learned["image"].grad is None


def test_another_kind_is_refused_with_the_two_that_exist() -> None:
    with pytest.raises(ValueError, match="missing = zero; set it to identity or learned"):
        Absent(["text"], 3, missing="zero", neutral=0.0)
