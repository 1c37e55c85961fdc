"""Whether a picture's cached features depend on the batch it was computed in, on mini.

    python benchmarks/cache_batches.py [--pictures 64] [--device cpu] [--dtype float32] [--json]

The features of the same pictures, computed by vision passes of many sizes, in two orders, with one thread and with all,
rounded to float16 as a cache stores them by default. Counted against passes of 32 in the first order with all threads:
pictures with any other value before rounding, values that differ after it, and the largest such difference.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence

import torch
from _common import Row, show
from PIL import Image
from torch import Tensor

from claspkit.cache.encoder import LoadedEncoder
from claspkit.mini.samples import draw_picture
from claspkit.runtime.models import load_model

SEED = 2_000_000  # of the pictures; no calibration draws from it
BASE = 32
SIZES = (1, 2, 4, 7, 8, 16, BASE, 64)


def features(encoder: LoadedEncoder, pictures: Sequence[Image.Image], order: Sequence[int], size: int) -> Tensor:
    """All layers of the pictures by passes of exactly ``size`` rows: (pictures, layers, N, d_v), float32, on a CPU."""
    found: dict[int, Tensor] = {}
    for start in range(0, len(order), size):
        batch = order[start : start + size]
        filled = [*batch, *[batch[-1]] * (size - len(batch))]
        with torch.inference_mode():
            hidden = encoder.encode([pictures[number] for number in filled])
        found.update((number, hidden[row].float().cpu()) for row, number in enumerate(batch))
    return torch.stack([found[number] for number in range(len(pictures))])


def compare(base: Tensor, other: Tensor) -> tuple[int, float, float]:
    """Pictures that differ at all, share of values (%) that differ as float16, the largest difference of those."""
    pictures = sum(not torch.equal(one, two) for one, two in zip(base, other, strict=True))
    one, two = base.half(), other.half()
    return pictures, 100 * float((one != two).double().mean()), float((one.double() - two.double()).abs().max())


def parse(arguments: Iterable[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "float16", "bfloat16"], help="of the weights")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    options = parser.parse_args(list(arguments) if arguments is not None else None)
    if options.pictures < 2:
        parser.error("--pictures must be at least 2")
    return options


def main(arguments: Iterable[str] | None = None) -> None:
    """Compute, compare, print."""
    options = parse(arguments)
    encoder = LoadedEncoder(load_model("mini", device=options.device, dtype=getattr(torch, options.dtype)))
    pictures = [draw_picture(SEED, number) for number in range(options.pictures)]
    orders = {"in order": list(range(len(pictures))), "reversed": list(range(len(pictures)))[::-1]}
    threads = torch.get_num_threads()
    base = features(encoder, pictures, orders["in order"], BASE)
    rows = []
    try:
        for count in dict.fromkeys((threads, 1)):
            torch.set_num_threads(count)
            for size in SIZES:
                for name, order in orders.items():
                    differing, share, largest = compare(base, features(encoder, pictures, order, size))
                    what = f"passes of {size}, {name}, {count} threads"
                    rows.append(Row(f"{what}: pictures that differ", differing, f"of {len(pictures)}"))
                    if differing:
                        rows.append(Row(f"{what}: float16 values that differ", share, "%"))
                        rows.append(Row(f"{what}: largest difference", largest, ""))
    finally:
        torch.set_num_threads(threads)
    show(f"mini on {options.device} in {options.dtype}, against passes of {BASE}", rows, options.json)


if __name__ == "__main__":
    main()
