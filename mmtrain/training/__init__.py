"""The LightningModule, and what a training run needs around it."""
