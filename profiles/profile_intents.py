"""A user's own taxonomy inside a profile: enough of it to route by and to say what the classes are."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from .errors import ProfileError
from .fields import IntentId, Spec
from .intents import STANDARD
from .taxonomy import MAX_FINE, FineIntent, Intent, Taxonomy


def _printable(name: str) -> str:
    """As in a taxonomy's file: nothing that turns or hides what is printed after it."""
    if not name.isprintable():
        raise ValueError("it holds characters that cannot be printed")
    return name


ShownName = Annotated[str, Field(min_length=1, max_length=60), AfterValidator(_printable)]


class IntentSpec(Spec):
    """A class of a user's own taxonomy: its id, its name, and the fine intents it is made of."""

    id: IntentId
    name: ShownName
    fine: Annotated[tuple[IntentId, ...], Field(min_length=1, max_length=MAX_FINE, fail_fast=True)]


def intent_specs(taxonomy: Taxonomy) -> tuple[IntentSpec, ...] | None:
    """The classes of a taxonomy as they stand in a profile: None for the standard nine."""
    if taxonomy.labels_digest == STANDARD.labels_digest:
        return None
    return tuple(
        IntentSpec(
            id=intent.id,
            name=intent.name,
            fine=tuple(fine.id for fine in taxonomy.fine_intents if fine.intent == intent.id),
        )
        for intent in taxonomy.intents
    )


def specs_taxonomy(specs: tuple[IntentSpec, ...], default: str) -> Taxonomy:
    """The taxonomy that a profile's classes were made from, without its definitions, examples and rules."""
    intents = tuple(Intent(index, spec.id, spec.name) for index, spec in enumerate(specs))
    fine = tuple(FineIntent(name, "", spec.id) for spec in specs for name in spec.fine)
    return Taxonomy("profile", intents, fine, default)


def check_intents(
    digest: str, specs: tuple[IntentSpec, ...] | None, router_kind: str, fallback: str
) -> tuple[str, ...]:
    """Ids of the classes of a profile, in order.

    Raises:
        ProfileError: the classes contradict each other, the digest or the router.
    """
    found = STANDARD if specs is None else specs_taxonomy(specs, fallback)
    for name, ids in (("id", found.ids), ("fine", found.fine_ids)):
        if len(set(ids)) < len(ids):
            raise ProfileError("intents", f"two of them have the same {name}")
    if len(found.fine_ids) > MAX_FINE:
        raise ProfileError("intents", f"{len(found.fine_ids)} fine intents, at most {MAX_FINE} are allowed")
    if digest != found.digest:
        what = "it was made for another set of intents than this version has"
        raise ProfileError("taxonomy", what if specs is None else "it does not fit the intents")
    if fallback not in found.ids:
        raise ProfileError("router.fallback", f"{fallback!r} is none of {', '.join(found.ids)}")
    if specs is not None and router_kind == "rules":
        raise ProfileError("router.kind", "the rules know the standard intents only: these need a student")
    return found.ids
