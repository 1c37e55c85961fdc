"""How much of the machine's arithmetic labelling uses: the letters' FLOPs per second over those of a matrix product.

    python benchmarks/router_flops.py [--shape small|qwen3-8b] [--device cpu] [--batch 16] [--prompts 64] [--json]

A Qwen3 of random weights labels prompts by letters, the instructions' keys and values shared. Counted are the matrices'
FLOPs on each prompt's own tokens, attention to the shared prefix included, the output matrix on the last token alone;
padding, norms and softmax are left out, so that wasted work lowers the share. The limit is a square product of the same
dtype, measured in the same run. ``--shape qwen3-8b --device cuda`` is the labeller's own size (16 GB of weights on disk
and on the device); its tokenizer is a small one, so prompts have more tokens than with Qwen3's, and the share is the
figure to read, not the prompts per second. The bar of 0.4 is meant for a GPU.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median, quantiles

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import torch
from _common import Row, show
from router_teacher import questions
from tiny_teacher import save_teacher
from transformers import Qwen3Config, Qwen3ForCausalLM

from claspkit.router.backend_transformers import TransformersBackend
from claspkit.router.backends import BackendOptions
from claspkit.router.template import quoted

BAR = 0.4
SHAPES: dict[str, dict[str, int]] = {
    "small": {
        "hidden_size": 512,
        "intermediate_size": 1536,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "vocab_size": 32_000,
    },
    "qwen3-8b": {
        "hidden_size": 4096,
        "intermediate_size": 12_288,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151_936,
    },
}
SIDE = {"cpu": 2048, "cuda": 8192}


def save_model(folder: Path, shape: dict[str, int], device: str, dtype: torch.dtype) -> Path:
    """A teacher of this shape: the tests' tokenizer and chat template, random weights."""
    save_teacher(folder)
    torch.manual_seed(0)
    config = Qwen3Config(**shape, max_position_embeddings=16_384, initializer_range=0.02)
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            Qwen3ForCausalLM(config).save_pretrained(folder)
    finally:
        torch.set_default_dtype(default)
    return folder


def label_flops(shape: dict[str, int], prefix: int, lengths: Iterable[int]) -> int:
    """FLOPs (multiply + add = 2) of labelling prompts of these many tokens after a shared prefix."""
    width, heads = shape["hidden_size"], shape["num_attention_heads"] * shape["head_dim"]
    keys = shape["num_key_value_heads"] * shape["head_dim"]
    matrices = width * heads * 2 + width * keys * 2 + 3 * width * shape["intermediate_size"]
    total = 0
    for count in lengths:
        attended = count * prefix + count * (count + 1) // 2
        layer = 2 * count * matrices + 4 * heads * attended
        total += shape["num_hidden_layers"] * layer + 2 * width * shape["vocab_size"]
    return total


def seconds(work: Callable[[], object], device: str) -> float:
    """How long it takes, the device's own work included."""
    if device != "cpu":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(options: argparse.Namespace, folder: Path) -> list[Row]:
    """Time the labelling and the product in turn."""
    dtype = torch.float32 if options.device == "cpu" else torch.bfloat16
    shape = SHAPES[options.shape]
    model = BackendOptions(
        model=str(save_model(folder, shape, options.device, dtype)), device=options.device, batch_size=options.batch
    )
    backend, prompts = TransformersBackend(model), questions(options.prompts)
    lengths = [len(backend._encode(quoted(prompt) + backend._tail)) for prompt in prompts]
    flops = label_flops(shape, len(backend._prefix_ids), lengths)
    side = SIDE.get(options.device.partition(":")[0], 2048)
    left = torch.randn(side, side, device=options.device, dtype=dtype)
    rates, limits, shares = [], [], []
    for repeat in range(options.repeats + 1):
        took = seconds(lambda: backend.label(prompts), options.device)
        limit = 2 * side**3 / seconds(lambda: left @ left, options.device)
        if repeat:  # the first one warms up
            rates.append(len(prompts) / took)
            limits.append(limit / 1e9)
            shares.append(flops / took / limit)
    rows = [Row("tokens of a prompt", sum(lengths) / len(lengths), "tokens")]
    rows += [Row("tokens of the shared prefix", len(backend._prefix_ids), "tokens")]
    for what, values, unit in (
        (f"prompts labelled, batches of {options.batch}", rates, "prompts/s"),
        (f"product of {side} x {side}", limits, "GFLOP/s"),
    ):
        low, middle, high = quantiles(values, n=4)
        rows.append(Row(what, middle, unit, low=low, high=high))
    low, _, high = quantiles(shares, n=4)
    share, gpu = median(shares), options.device != "cpu"
    rows.append(
        Row("share of the FLOP limit", share, "", f">= {BAR} on a GPU", share >= BAR if gpu else None, low, high)
    )
    return rows


def parse(arguments: Iterable[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="small", help="sizes of the random model")
    parser.add_argument("--device", default="cpu", help="torch device")
    parser.add_argument("--batch", type=int, default=16, help="prompts per forward")
    parser.add_argument("--prompts", type=int, default=64, help="prompts per repeat")
    parser.add_argument("--repeats", type=int, default=5, help="at least 2")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    options = parser.parse_args(list(arguments) if arguments is not None else None)
    if min(options.batch, options.prompts) < 1 or options.repeats < 2:
        parser.error("--batch and --prompts must be at least 1 and --repeats at least 2")
    return options


def main(arguments: Iterable[str] | None = None) -> None:
    """Make the model, and measure."""
    options = parse(arguments)
    with tempfile.TemporaryDirectory() as made:
        rows = measure(options, Path(made) / "teacher")
        show(f"Labelling by letters, random Qwen3 ({options.shape}), {options.device}", rows, options.json)


if __name__ == "__main__":
    main()
