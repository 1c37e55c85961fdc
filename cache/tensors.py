"""Between torch tensors and the arrays in which features are stored: bfloat16 exists in torch only."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .layout import Features, storage_dtype

_TORCH: dict[str, torch.dtype] = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "int8": torch.float16,  # what writers hand over and readers get; see ``quantise``
}


def to_stored(features: Tensor, dtype: str) -> Features:
    """Round a tensor of any shape to a logical dtype, int8 to float16; C-contiguous array in storage dtype."""
    rounded = features.detach().to(_TORCH[dtype]).cpu().contiguous()
    if dtype == "bfloat16":
        return rounded.view(torch.int16).numpy().view(np.uint16)
    array: Features = rounded.numpy()
    return array


def to_tensor(stored: Features, dtype: str) -> Tensor:
    """See a storage array as a tensor of its logical dtype, of float16 for int8, sharing memory."""
    if stored.dtype != storage_dtype(dtype):
        raise ValueError(f"{dtype} features are stored as {storage_dtype(dtype)}, not {stored.dtype}")
    if dtype == "bfloat16":
        return torch.from_numpy(stored.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(stored)
