"""``claspkit router attack``: how far injections move a router."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from claspkit.profiles.errors import BadDataError, UsageError, shorten
from claspkit.profiles.intents import is_standard, open_taxonomy
from claspkit.profiles.taxonomy import Taxonomy
from claspkit.router.attack import LIMIT, Attack, attack
from claspkit.router.backend_replay import answer_rows, is_log
from claspkit.router.backends import BACKENDS
from claspkit.router.injections import INJECTIONS
from claspkit.router.rules import RULES

from .cli_backend import RouterDevice, make_named
from .cli_stages import RouterAnswers, RouterEndpoint, RouterKeyEnv, RouterMode, RouterModel, TaxonomyFile
from .labelled import read_labelled
from .table import clean, percent


def attack_router(
    file: Annotated[
        Path | None,
        typer.Argument(help='Lines of {"prompt"}, or a run\'s labels.jsonl. Default: examples of rules or intents.'),
    ] = None,
    router: Annotated[str, typer.Option(help=f"Who is attacked, one of: {', '.join(BACKENDS)}.")] = "student",
    part: Annotated[str | None, typer.Option(help='Take only lines whose "part" is this.')] = None,
    limit: Annotated[
        int, typer.Option(min=1, help="Attacked prompts at most; each injection has its share of them.")
    ] = LIMIT,
    batch: Annotated[
        int, typer.Option(min=1, help="Prompts per call of the router; the slowest call's time is shared by them.")
    ] = 1,
    router_model: RouterModel = None,
    router_mode: RouterMode = "logits",
    router_endpoint: RouterEndpoint = None,
    router_key_env: RouterKeyEnv = None,
    router_answers: RouterAnswers = None,
    taxonomy: TaxonomyFile = None,
    device: RouterDevice = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Put 200 injections into prompts and count how many get another class than without.

    Examples:

      claspkit router attack --router student

      claspkit router attack router/reference/prompts.jsonl --part train --router transformers --batch 16 \\
        --limit 2000
    """
    classes = open_taxonomy(taxonomy)
    carriers = _examples(classes) if file is None else _read_prompts(file, part, classes)
    backend = make_named(
        router, router_model, router_mode, router_endpoint, router_key_env, router_answers, device, classes
    )
    found = attack(backend, carriers, limit=limit, batch=batch)
    if as_json:
        typer.echo(json.dumps(found.to_dict()))
    else:
        _print(found, Console())


def _examples(taxonomy: Taxonomy) -> list[str]:
    """Ordinary prompts: the examples of the rules, or of a user's own intents."""
    if is_standard(taxonomy):
        return [rule.example for rule in RULES]
    found = [example for fine in taxonomy.fine_intents for example in fine.examples]
    if not found:
        raise UsageError(f"the taxonomy {taxonomy.name!r} has no examples to attack; name a FILE of prompts")
    return found


def _read_prompts(path: Path, part: str | None, taxonomy: Taxonomy) -> list[str]:
    """The different prompts of a file; their labels, if it has any, do not matter."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}); name a file of prompts") from None
    if is_log(data):
        return list(dict.fromkeys(row.prompt for row in read_labelled(path, part, taxonomy)))
    found: dict[str, None] = {}
    for number, row in answer_rows(data, path):
        prompt = row.get("prompt")
        if not isinstance(prompt, str):
            raise BadDataError(f'{path}, line {number}: a line needs "prompt" (text); there is {shorten(row)}')
        if part is None or row.get("part") == part:
            found[prompt] = None
    if not found:
        raise UsageError(f"{path} holds no prompt" + ("" if part is None else f" of part {part!r}"))
    return list(found)


def _print(found: Attack, console: Console) -> None:
    """A row per kind of injection, then those that played a part in tuning, those that did not, and all."""
    title = f"{found.source}: {found.carriers} prompts, {len(INJECTIONS)} injections"
    console.print(Text(clean(title), style="bold"), soft_wrap=True)
    table = Table("injections", "prompts", "changed", "to default", "at target", "slowest")
    for column in table.columns[1:]:
        column.justify = "right"
    for row in (*found.kinds, found.tuned, found.held_out, found.total):
        if row is found.tuned:
            table.add_section()
        table.add_row(
            row.name,
            str(row.prompts),
            f"{percent(row.share)} %",
            f"{percent(row.to_default / row.prompts if row.prompts else 0.0)} %",
            f"{percent(row.reached / row.aimed)} %" if row.aimed else "",
            f"{1e3 * row.slowest:.1f} ms",
        )
    console.print(table)
