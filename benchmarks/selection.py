"""How fast tokens are selected: k-means in Gram space against a loop over clusters, three stages, layer fusion.

    python benchmarks/selection.py [--device cpu] [--dtype float32] [--batch 1] [--repeats 7] [--threads 1] [--json]

The loop is the method as one would write it down: unit vectors in all D channels, one product for the assignment, a
Python loop over clusters for the centres and for the medoids. Both sides get the same seeds and have to keep the same
tokens. Times are the smallest of the repeats, taken in turn, so that both sides meet the same machine.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from _common import Row, show
from torch import Tensor

from claspkit.runtime.clusters import medoids
from claspkit.runtime.cosines import ITERATIONS, Cosines, DirectCosines, GramCosines, StageWork, cosines
from claspkit.runtime.fusion import fuse
from claspkit.runtime.gram import gram_matrix, unit_vectors
from claspkit.runtime.selection import TIE_TOLERANCE, select, split_budget

SHAPES = ((576, 4096, 60), (576, 4096, 180), (576, 1024, 60), (300, 4096, 80), (200, 4096, 44))  # N, D, M
BARRED = (576, 4096)  # the published model's picture and width
LISTS = ((300, 200, 118), (66, 34, 20))
RHO = 0.7
VISION_WIDTH, FUSED_LAYERS = 1024, 5


def draw(batch: int, tokens: int, width: int, dtype: torch.dtype, device: str) -> tuple[Tensor, Tensor]:
    """Saliency (B, N) and features (B, N, D) in loose groups, as neighbouring patches are alike."""
    generator = torch.Generator().manual_seed(tokens + width)
    groups = torch.randn(batch, 40, width, generator=generator)
    member = torch.randint(0, 40, (batch, tokens), generator=generator)
    features = groups.gather(1, member[:, :, None].expand(-1, -1, width))
    features = features + 0.8 * torch.randn(batch, tokens, width, generator=generator)
    return torch.rand(batch, tokens, generator=generator).to(device), features.to(device=device, dtype=dtype)


def looped(saliency: Tensor, features: Tensor, seeds: Tensor) -> list[Tensor]:
    """Medoids per sample by loops over samples and clusters: the naive form of Eq. 14-17 and its tie rules."""
    found = []
    for weight, vectors, start in zip(saliency, features, seeds, strict=True):
        units = torch.nn.functional.normalize(vectors.float(), dim=1)
        centres = units[start]
        for _ in range(ITERATIONS):
            owner = (units @ centres.T).argmax(dim=1)
            for cluster in range(len(start)):
                members = units[owner == cluster]
                if len(members):
                    total = members.sum(dim=0)
                    if float(total @ total) > TIE_TOLERANCE:
                        centres[cluster] = total / total.norm()
        kept = []
        for cluster in range(len(start)):
            members = (owner == cluster).nonzero()[:, 0]
            if len(members):
                cosine = units[members] @ centres[cluster]
                near = members[cosine >= cosine.max() - TIE_TOLERANCE]
                kept.append(int(near[weight[near].argmax()]))
        found.append(torch.tensor(sorted(kept)))
    return found


def fastest(work: Sequence[Callable[[], object]], repeats: int, device: str) -> list[float]:
    """Milliseconds of each piece of work: the smallest of the repeats, after one round of warming up."""
    best = [float("inf")] * len(work)
    for turn in range(repeats + 1):
        for index, piece in enumerate(work):
            started = _now(device)
            piece()
            if turn:
                best[index] = min(best[index], 1e3 * (_now(device) - started))
    return best


def _now(device: str) -> float:
    if device != "cpu":
        torch.accelerator.synchronize()
    return time.perf_counter()


def in_gram_space(features: Tensor) -> Cosines:
    """The Gram matrix, formed now."""
    return GramCosines(*gram_matrix(features))


def as_vectors(features: Tensor) -> Cosines:
    """Unit vectors; without rounds to pay it back, no Gram matrix is ever formed from them."""
    return DirectCosines(*unit_vectors(features), iterations=0)


def formed(form: Callable[[Tensor], Cosines], features: Tensor, rest: tuple[Any, ...]) -> Tensor:
    """Features to medoids."""
    return medoids(form(features), *rest)


def kmeans_rows(options: argparse.Namespace, dtype: torch.dtype) -> list[Row]:
    """Loop over clusters against Gram space and against unit vectors, one clustering of all N tokens."""
    rows = []
    for tokens, width, clusters in SHAPES:
        saliency, features = draw(options.batch, tokens, width, dtype, options.device)
        gram = in_gram_space(features)
        seeds = torch.sort(gram.mean(None), dim=1, stable=True).indices[:, :clusters]
        pool = torch.ones_like(saliency, dtype=torch.bool)
        rest = (saliency, pool, seeds, None, ITERATIONS, TIE_TOLERANCE)
        loop, whole, rounds, direct = fastest(
            [
                partial(looped, saliency, features, seeds),
                partial(formed, in_gram_space, features, rest),
                partial(medoids, gram, *rest),
                partial(formed, as_vectors, features, rest),
            ],
            options.repeats,
            options.device,
        )
        ours = medoids(gram, *rest)
        naive = looped(saliency, features, seeds)
        same = all(row.nonzero()[:, 0].tolist() == kept.tolist() for row, kept in zip(ours, naive, strict=True))
        barred = (tokens, width) == BARRED
        shape = f"N {tokens}, D {width}, M {clusters}"
        rows += [
            Row(f"{shape}: loop over clusters", loop, "ms"),
            Row(f"{shape}: Gram matrix and k-means", whole, "ms"),
            Row(f"{shape}: k-means alone", rounds, "ms"),
            Row(f"{shape}: unit vectors, no Gram matrix", direct, "ms"),
            Row(f"{shape}: loop / Gram", loop / whole, "x", *((">= 2", loop / whole >= 2) if barred else ("", None))),
            Row(
                f"{shape}: loop / k-means alone",
                loop / rounds,
                "x",
                *((">= 20", loop / rounds >= 20) if barred else ("", None)),
            ),
            Row(f"{shape}: the loop keeps the same tokens", float(same), "", "1", same),
        ]
    return rows


def run_stages(
    form: Callable[[Tensor], Cosines], saliency: Tensor, features: Tensor, work: Sequence[StageWork]
) -> Tensor:
    """All stages one after the other, on the same saliency; returns what the last one keeps."""
    similar = form(features)
    for index, stage in enumerate(work):
        found = select(saliency, similar, stage.keep, [stage.pivots] * len(saliency), check=False)
        if index + 1 < len(work):
            similar, saliency = similar.take(found.kept, work[index + 1 :]), saliency.gather(1, found.kept)
    return found.kept


def stage_rows(options: argparse.Namespace, dtype: torch.dtype) -> list[Row]:
    """All stages of two published schedules, features given, by the rule's choice and by each form."""
    tokens, width = BARRED
    saliency, features = draw(options.batch, tokens, width, dtype, options.device)
    rows = []
    for keeps in LISTS:
        alive = (tokens, *keeps[:-1])
        work = [StageWork(n, keep, split_budget(RHO, keep)) for n, keep in zip(alive, keeps, strict=True)]

        forms = (partial(cosines, work=work), in_gram_space, as_vectors)
        times = fastest(
            [partial(run_stages, form, saliency, features, work) for form in forms], options.repeats, options.device
        )
        shown = "/".join(map(str, keeps))
        rows += [
            Row(f"three stages {shown}, rho {RHO}: form picked by the rule", times[0], "ms"),
            Row(f"three stages {shown}, rho {RHO}: one Gram matrix", times[1], "ms"),
            Row(f"three stages {shown}, rho {RHO}: unit vectors", times[2], "ms"),
        ]
    return rows


def fusion_row(options: argparse.Namespace, dtype: torch.dtype) -> Row:
    """Fusing five layers of the vision tower."""
    layers = torch.randn(FUSED_LAYERS, options.batch, BARRED[0], VISION_WIDTH).to(options.device, dtype)
    weights = torch.softmax(torch.randn(options.batch, FUSED_LAYERS), dim=1).to(options.device)
    (found,) = fastest([partial(fuse, layers, weights)], options.repeats, options.device)
    return Row(f"fusion of {FUSED_LAYERS} layers, N {BARRED[0]}, D {VISION_WIDTH}", found, "ms")


def parse(arguments: Iterable[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="where the tensors lie, like cuda")
    parser.add_argument("--dtype", default="float32", choices=["float32", "float16", "bfloat16"], help="of features")
    parser.add_argument("--batch", type=int, default=1, help="samples at once")
    parser.add_argument("--repeats", type=int, default=7, help="the smallest time of so many counts")
    parser.add_argument("--threads", type=int, default=1, help="threads of the processor")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return parser.parse_args(list(arguments) if arguments is not None else None)


def main() -> None:
    """Time, print."""
    options = parse()
    torch.set_num_threads(options.threads)
    dtype: torch.dtype = getattr(torch, options.dtype)
    with torch.inference_mode():
        rows = [*kmeans_rows(options, dtype), *stage_rows(options, dtype), fusion_row(options, dtype)]
    show(
        f"selection: {options.device}, {options.dtype}, batch {options.batch}, {options.threads} thread(s), "
        f"smallest of {options.repeats}",
        rows,
        options.json,
    )


if __name__ == "__main__":
    main()
