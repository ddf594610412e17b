"""A new component is a Python file, a YAML file and a test: `--help`, the checks and the docs find it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ADDED = {
    "mmtrain/fusion/blend.py": '''
"""A convex mix."""
from typing import Literal
from mmtrain.annotations import Fraction, Size
Way = Literal["soft", "hard"]
class Blend:
    """Mixes modalities."""
    def __init__(self, *, dims: dict[str, int], dim: Size, way_of_mixing: Way, dropout: Fraction) -> None: ...
''',
    "configs/fusion/blend.yaml": """
_target_: mmtrain.fusion.blend.Blend
dim: ${dim}
way_of_mixing: soft
dropout: 0.1
""",
    "mmtrain/tasks/rating.py": '''
"""A score in classes."""
from typing import Literal
from mmtrain.annotations import Flattened
from mmtrain.tasks.supervised import HeadSpec, SupervisedTask
class Rating(SupervisedTask):
    """Rates."""
    def __init__(self, *, head: Flattened[HeadSpec], scale_of_rating: Literal["stars", "points"] | None) -> None: ...
''',
    "configs/task/rating.yaml": """
# @package task.rating
_target_: mmtrain.tasks.rating.Rating
target: number
input: fused
weight: 1.0
dropout: 0.1
scale_of_rating: stars
""",
    "mmtrain/encoders/image/stripes.py": '''
"""Stripes of an image."""
from typing import Annotated
from annotated_types import Ge, Le
class Stripes:
    """Cuts an image."""
    def __init__(self, *, num_stripes: Annotated[int, Ge(1), Le(64)]) -> None: ...
''',
    "configs/encoder/image/stripes.yaml": """
defaults:
  - /tuning@_here_: default
  - _self_
_target_: mmtrain.encoders.image.stripes.Stripes
num_stripes: 4
""",
    "mmtrain/balance/thrift.py": '''
"""Spends little."""
from mmtrain.annotations import PositiveFloat
class Thrift:
    """Weighs tasks."""
    def __init__(self, *, budget_per_task: PositiveFloat) -> None: ...
''',
    "configs/balance/thrift.yaml": """
_target_: mmtrain.balance.thrift.Thrift
budget_per_task: 1.5
""",
}
LOOK = """
import json, sys
sys.path.insert(1, SCRIPTS)
import write_options
from mmtrain.config.compose import config_dir
from mmtrain.config.validate import faults_of, help_text
chosen = ["fusion=blend", "task=[rating,classification]", "encoder/image=stripes", "balance=thrift"]
wrong = ["fusion.way_of_mixing=sof", "task.rating.scale_of_rating=moons", "encoder.image.num_stripes=0.5",
         "task.rating.dropout=1.5", "balance.budget_per_task=-7"]
print(json.dumps({
    "help": help_text(config_dir(), None),
    "right": faults_of(config_dir(), None, chosen, multirun=False),
    "wrong": faults_of(config_dir(), None, [*chosen, *wrong], multirun=False),
    "options": write_options.page(),
    "heavy": [name for name in ("torch", "pytorch_lightning") if name in sys.modules],
}))
"""


def test_a_new_component_is_found_everywhere(tmp_path: Path) -> None:
    for folder in ("mmtrain", "configs"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for path, source in ADDED.items():
        (tmp_path / path).write_text(source.lstrip(), encoding="utf-8")
    look = f"SCRIPTS = {str(ROOT / 'scripts')!r}\n{LOOK}"
    done = subprocess.run([sys.executable, "-c", look], cwd=tmp_path, capture_output=True, text=True, check=True)
    content = json.loads(done.stdout)
    assert content["right"] == [] and content["heavy"] == []
    assert sorted(fault.partition(" (")[0] for fault in content["wrong"]) == [
        "balance.budget_per_task=-7: must be a number above 0",
        "encoder.image.num_stripes=0.5: must be an integer between 1 and 64",
        "fusion.way_of_mixing=sof: must be one of soft, hard",
        "task.rating.dropout=1.5: must be a number between 0 and 1",
        "task.rating.scale_of_rating=moons: must be one of stars, points or null",
    ]
    for name in ("blend", "rating", "stripes", "thrift"):
        assert name in content["help"]
        assert f"| `{name}` |" in content["options"]
    assert "`way_of_mixing=soft` (`hard`)" in content["options"]
