"""Metrics that torchmetrics does not have in the form needed here."""
