"""A taxonomy of a user's own, for tests: three classes over mini's questions, with rules."""

from pathlib import Path

OWN = """\
name = "shop floor"
default = "rest"

[[class]]
id = "amount"
name = "Amounts"

[[class]]
id = "look"
name = "Colours and kinds"
definition = "How a thing looks."

[[class]]
id = "rest"
name = "Everything else"

[[intent]]
id = "anything"
class = "rest"
definition = "Anything else."

[[intent]]
id = "how_many"
class = "amount"
definition = "How many things of a kind there are."
examples = ["How many pallets are there?"]

[[intent]]
id = "colour"
class = "look"
definition = "The colour of a thing."

[[intent]]
id = "kind"
class = "look"
definition = "The kind of a thing."

[[rule]]
id = "count"
intent = "how_many"
phrases = ["how many", "number of"]
overrides = true

[[rule]]
id = "colour"
intent = "colour"
phrases = ["what colour", "what color"]

[[rule]]
id = "kind"
intent = "kind"
phrases = ["what is"]
"""


def write_own_taxonomy(folder: Path) -> Path:
    """The file, in ``folder``."""
    path = folder / "taxonomy.toml"
    path.write_text(OWN, encoding="utf-8")
    return path
