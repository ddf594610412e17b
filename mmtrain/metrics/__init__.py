"""Metrics that torchmetrics does not have in the form that is needed here."""
