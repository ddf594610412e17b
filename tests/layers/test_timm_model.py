"""Timm models: names of the library, and weights that are read without running code."""

from typing import Any

import pytest
import timm.models._builder

from mmtrain.layers.timm_model import timm_config, timm_model


@pytest.mark.parametrize(
    "name",
    [
        *(
            "hf-hub:theirs/resnet18",
            "hf_hub:theirs/resnet18",
            "local-dir:/tmp/theirs",
            "hf-hub:theirs/resnet18.a1_in1k",
        ),
        *("resnet18.hf-hub:theirs", "../resnet18", "timm.models.resnet.resnet18", ""),
    ],
)
def test_a_name_is_one_of_timms_own(name: str) -> None:
    with pytest.raises(ValueError, match="timm has no model named"):
        timm_config(name)
    with pytest.raises(ValueError, match="timm has no model named"):
        timm_model(name, pretrained=True, options={})


def test_weights_are_read_without_running_code(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def load(*args: Any, **options: Any) -> dict[str, Any]:
        given.update(options)
        raise RuntimeError("enough")

    monkeypatch.setattr(timm.models._builder, "load_state_dict_from_hf", load)
    with pytest.raises(ValueError, match="cannot be loaded: enough"):
        timm_model("resnet18.a1_in1k", pretrained=True, options={})
    assert given["weights_only"] is True
