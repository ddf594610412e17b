"""Imported once by the server of tests/ranks.py: a process that it forks need not do it again.

All of mmtrain, with the libraries that it imports, and a composed configuration, because Hydra's plugins are found and
YAML files are parsed at the first one.
"""

import importlib
import pkgutil

import datasets  # noqa: F401 - imported by most runs, but late
from hydra.core.global_hydra import GlobalHydra

import mmtrain
from mmtrain.build import compose

for module in pkgutil.walk_packages(mmtrain.__path__, "mmtrain."):
    importlib.import_module(module.name)
compose([])
GlobalHydra.instance().clear()
