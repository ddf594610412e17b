"""Distillation (1503.02531): a student's distribution, or its features, are brought near a teacher's."""

import torch
from torch import Tensor
from torch.nn import functional as F


def soft_cross_entropy(student: Tensor, teacher: Tensor, valid: Tensor, *, temperature: float) -> tuple[Tensor, Tensor]:
    """The sum over the valid rows of T^2 KL(softmax(teacher / T) || softmax(student / T)), and their count.

    T^2 keeps the size of gradients whatever T (section 2).

    Args:
        student: (B, C), floating point; float64 stays, all else becomes float32.
        teacher: (B, C), as many classes; no gradient goes to it.
        valid: (B,), bool.
        temperature: T, above 0.
    """
    dtype = torch.promote_types(student.dtype, torch.float32)
    unread = ~valid.unsqueeze(1)
    wanted = (teacher.detach().to(dtype).masked_fill(unread, 0.0) / temperature).log_softmax(dim=1)
    said = (student.to(dtype).masked_fill(unread, 0.0) / temperature).log_softmax(dim=1)
    costs = F.kl_div(said, wanted, reduction="none", log_target=True).sum(dim=1)
    return temperature**2 * costs.masked_fill(~valid, 0.0).sum(), valid.sum()


def feature_distance(student: Tensor, teacher: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """The sum over the valid rows of 1 - cos(student, teacher), and their count.

    Args:
        student: (B, D), floating point.
        teacher: (B, D); no gradient goes to it.
        valid: (B,), bool.
    """
    dtype = torch.promote_types(student.dtype, torch.float32)
    here = student.to(dtype).masked_fill(~valid.unsqueeze(1), 1.0)  # zeros would have no direction
    there = teacher.detach().to(dtype).masked_fill(~valid.unsqueeze(1), 1.0)
    costs = 1.0 - F.cosine_similarity(here, there, dim=1)
    return costs.masked_fill(~valid, 0.0).sum(), valid.sum()
