"""The LightningModule, and everything around it in a training run."""
