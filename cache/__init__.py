"""Vision-layer outputs on disk: HDF5, verified and resumable.

Torch is not loaded from here, because the writing process imports this package too: extraction is
``claspkit.cache.extract``, tensors are ``claspkit.cache.tensors``, a model's key ``claspkit.cache.encoder``.
"""

from .keys import DTYPES, FeatureKey
from .store import FeatureStore, MissingImageError
from .upkeep import BadShard, GcReport, RepairReport, VerifyReport
from .writer import FeatureWriter

__all__ = [
    "DTYPES",
    "BadShard",
    "FeatureKey",
    "FeatureStore",
    "FeatureWriter",
    "GcReport",
    "MissingImageError",
    "RepairReport",
    "VerifyReport",
]
