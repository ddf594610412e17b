"""Trained models as files of transformers, timm and torch.export."""
