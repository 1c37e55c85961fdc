"""Features as a map-style data set for ``torch.utils.data.DataLoader``, also with workers that are spawned."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from .keys import FeatureKey
from .pool import Verify
from .prefetch import Request
from .store import FeatureStore
from .tensors import to_tensor


class FeatureDataset(Dataset[Tensor]):
    """Item i is what ``requests[i]`` asks for: (layers, tokens, width) in the store's logical dtype (int8: float16).

    The store is opened in each worker at its first item, so the data set crosses to a spawned process as a path and a
    list, and a forked one never uses what its parent opened. A default ``DataLoader`` stacks items into batches,
    which takes requests of equally many layers and pictures of equally many tokens.
    """

    def __init__(
        self,
        folder: Path | str,
        requests: Sequence[Request],
        key: FeatureKey | None = None,
        *,
        verify: Verify = "chunks",
    ) -> None:
        """Note what to read; nothing is opened.

        Args:
            folder: the store's folder.
            requests: image and layers of every item.
            key: what the features must be; None accepts what is there.
            verify: as of :meth:`FeatureStore.open`; each worker compares the checksums of what it reads.
        """
        self._folder = Path(folder)
        self._requests = [(image, tuple(layers)) for image, layers in requests]
        self._key = key
        self._verify = verify
        self._store: FeatureStore | None = None
        self._pid = 0

    def __len__(self) -> int:
        """Number of requests."""
        return len(self._requests)

    def __getitem__(self, index: int) -> Tensor:
        """Read one item into memory of its own.

        Raises:
            IndexError: there is no such item.
            ClaspError: the store cannot be opened or read, as of :meth:`FeatureStore.open` and its ``read``.
        """
        image, layers = self._requests[index]
        store = self._opened()
        return to_tensor(store.read(image, layers), store.key.dtype)

    def __getstate__(self) -> dict[str, Any]:
        """What goes to a worker: everything but the open store."""
        return self.__dict__ | {"_store": None, "_pid": 0}

    def close(self) -> None:
        """Close this process's store; the next item opens it again."""
        store, self._store = self._store, None
        if store is not None and self._pid == os.getpid():
            store.close()

    def _opened(self) -> FeatureStore:
        if self._store is None or self._pid != os.getpid():
            self._store = FeatureStore.open(self._folder, self._key, verify=self._verify)
            self._pid = os.getpid()
        return self._store
