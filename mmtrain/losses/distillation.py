"""Distillation (1503.02531): match a student's distribution, or its features, to a teacher's."""

import torch
from torch import Tensor
from torch.nn import functional as F


def soft_cross_entropy(student: Tensor, teacher: Tensor, valid: Tensor, *, temperature: float) -> tuple[Tensor, Tensor]:
    """Return the sum over valid rows of T^2 KL(softmax(teacher / T) || softmax(student / T)), and their number.

    The factor T^2 keeps the size of gradients independent of T (section 2).

    Args:
        student: (B, C), floating point; float64 is kept, all other dtypes become float32.
        teacher: (B, C), with the same classes; gets no gradient.
        valid: (B,), bool.
        temperature: T, above 0.
    """
    dtype = torch.promote_types(student.dtype, torch.float32)
    unread = ~valid.unsqueeze(1)
    teacher_log_probs = (teacher.detach().to(dtype).masked_fill(unread, 0.0) / temperature).log_softmax(dim=1)
    student_log_probs = (student.to(dtype).masked_fill(unread, 0.0) / temperature).log_softmax(dim=1)
    costs = F.kl_div(student_log_probs, teacher_log_probs, reduction="none", log_target=True).sum(dim=1)
    return temperature**2 * costs.masked_fill(~valid, 0.0).sum(), valid.sum()


def feature_distance(student: Tensor, teacher: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sum over valid rows of 1 - cos(student, teacher), and their number.

    Args:
        student: (B, D), floating point.
        teacher: (B, D); gets no gradient.
        valid: (B,), bool.
    """
    dtype = torch.promote_types(student.dtype, torch.float32)
    here = student.to(dtype).masked_fill(~valid.unsqueeze(1), 1.0)  # a vector of zeros has no direction
    teacher_features = teacher.detach().to(dtype).masked_fill(~valid.unsqueeze(1), 1.0)
    costs = 1.0 - F.cosine_similarity(here, teacher_features, dim=1)
    return costs.masked_fill(~valid, 0.0).sum(), valid.sum()
