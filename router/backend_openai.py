"""The teacher behind an OpenAI-compatible chat endpoint: vLLM, SGLang, a llama.cpp server, or a hosted one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from threading import Event
from typing import Any

from claspkit.profiles.canonical import digest, sha256_hex
from claspkit.profiles.errors import BadDataError, UsageError

from .api_key import read_key
from .backends import Backend, BackendOptions
from .endpoint import chat_url
from .http_json import JsonClient, RefusedError
from .json_mode import Conversation, ask, json_digest
from .labels import Label, unread
from .template import instructions, letters, quoted, template_digest
from .threads import in_order

_BLOCKS = 8  # prompts per thread and block
_LETTER_FIELDS = {"max_tokens": 1, "logprobs": True, "top_logprobs": 20}
_JSON_FIELDS = {"max_tokens": 1024}  # room for the thinking of a model that cannot leave it
_SPACES = " \u2581\u0120"  # how tokenizers write the space before a word
_OTHER_WORDS = {"chat_template_kwargs": None, "max_tokens": "max_completion_tokens"}
"""Fields that some servers refuse by name, and what they take instead."""


class OpenAIBackend(Backend):
    """Labels by a chat model on a server.

    Args:
        options: ``endpoint`` and ``model`` are needed; ``mode``, ``concurrency`` and ``key_variable`` are read.
        client: asks in place of one made from the options.

    Raises:
        UsageError: no endpoint or model, no key where one was named, or one that would travel in clear text.
    """

    def __init__(self, options: BackendOptions, client: JsonClient | None = None) -> None:
        if options.endpoint is None or options.model is None:
            raise UsageError(
                "the openai router needs --router-endpoint, such as http://localhost:8000/v1, and --router-model, "
                "a name of that server's /v1/models"
            )
        if not options.model.isprintable() or not 0 < len(options.model) <= 160:
            raise UsageError("--router-model must be the name of a model on the server: 1 to 160 printable characters")
        self._client = client or JsonClient(chat_url(options.endpoint), read_key(options.key_variable))
        self.taxonomy = options.taxonomy
        self._model, self._letters = options.model, options.mode == "logits"
        self._threads = options.concurrency
        self._refused: frozenset[str] = frozenset()
        self.block = _BLOCKS * options.concurrency
        fields = _LETTER_FIELDS if self._letters else _JSON_FIELDS
        self.template = digest([(template_digest if self._letters else json_digest)(self.taxonomy), fields])
        # The address itself may be nobody else's business, and sources go into profiles.
        self.source = f"teacher:{options.model}@endpoint-{sha256_hex(options.endpoint.encode())[:12]}"

    def label(self, prompts: Sequence[str]) -> list[Label]:
        """One label per prompt: the likeliest letter and its share of all letters', or the JSON answer with 1.

        Raises:
            ClaspError: the server refuses, stays away, or answers what no chat endpoint answers.
        """
        return in_order(self._by_letters if self._letters else self._by_json, prompts, self._threads)

    def _by_letters(self, prompt: str, stop: Event) -> Label:
        message = {"role": "user", "content": instructions(self.taxonomy) + quoted(prompt)}
        shares = _letter_shares(self._post([message], _LETTER_FIELDS, stop), letters(self.taxonomy))
        total = math.fsum(shares)
        if total == 0:
            return unread(self.source, self.template, self.taxonomy)
        best = max(range(len(shares)), key=shares.__getitem__)
        fine = self.taxonomy.fine_intents[best]
        return Label(fine.intent, fine.id, round(shares[best] / total, 4), self.source, self.template)

    def _by_json(self, prompt: str, stop: Event) -> Label:
        def reply(talks: Sequence[Conversation]) -> list[str]:
            return [_text(self._post(talk, _JSON_FIELDS, stop)) for talk in talks]

        (fine,) = ask([prompt], reply, self.taxonomy)
        if fine is None:
            return unread(self.source, self.template, self.taxonomy)
        return Label(fine.intent, fine.id, 1.0, self.source, self.template)

    def _post(self, messages: Conversation, fields: dict[str, Any], stop: Event) -> Any:
        """Ask, leaving out or renaming what this server is known not to take."""
        wanted = {"temperature": 0, "chat_template_kwargs": {"enable_thinking": False}, **fields}
        while True:
            refused = self._refused
            body = {name: value for name, value in wanted.items() if name not in refused}
            body |= {other: wanted[name] for name in refused if (other := _OTHER_WORDS[name])}
            try:
                return self._client.post({"model": self._model, "messages": messages, **body}, stop)
            except RefusedError as error:
                named = {name for name in _OTHER_WORDS if name in error.reason} - refused
                if error.status not in {400, 422} or not named:
                    raise
                self._refused |= named


def _first_choice(answer: Any) -> dict[str, Any]:
    try:
        choice: dict[str, Any] = answer["choices"][0]
        if isinstance(choice, dict):
            return choice
    except (KeyError, IndexError, TypeError):
        pass
    raise BadDataError(
        "the labelling server's answer has no choices: is --router-endpoint an OpenAI-compatible chat endpoint?"
    )


def _text(answer: Any) -> str:
    """What the model wrote; empty where it wrote nothing."""
    message = _first_choice(answer).get("message")
    text = message.get("content") if isinstance(message, dict) else None
    return text if isinstance(text, str) else ""


def _letter_shares(answer: Any, answers: str) -> list[float]:
    """Probabilities of the letters ``answers`` as the first token, 0 for those not among the likeliest tokens."""
    try:
        first = _first_choice(answer)["logprobs"]["content"][0]
        likeliest = [(item["token"], item["logprob"]) for item in first["top_logprobs"]]
    except (KeyError, IndexError, TypeError):
        raise BadDataError(
            "the labelling server gives no log-probabilities of the first token, which --router-mode logits reads; "
            "allow 20 of them there, or take --router-mode json"
        ) from None
    shares = [0.0] * len(answers)
    for token, logprob in likeliest:
        if not isinstance(token, str) or type(logprob) not in {int, float} or logprob > 0.001:
            raise BadDataError("the labelling server gives log-probabilities that are none; is its version broken?")
        letter = token[1:] if token[:1] in tuple(_SPACES) else token
        if len(letter) == 1 and letter in answers:
            shares[answers.index(letter)] += math.exp(logprob)
    return shares
