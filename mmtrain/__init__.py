"""mmtrain trains multimodal models from configuration."""

__version__ = "0.1.0"
