"""Rules: versioned phrases of English questions about pictures, and the fine intent each one decides.

The order of RULES is part of them: the first rule that matches decides. It runs from what is asked ("how
many", "what colour") to where it is asked about ("next to"), so that "how many dogs are next to the car?" is
counting.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from claspkit.profiles.canonical import digest
from claspkit.profiles.intents import merge

from .prompts import normalise, question

# "Major.minor". A change that gives some prompt another intent raises the major number; a profile made under
# another major number routes differently and is refused.
RULES_VERSION = "1.0"


@dataclass(frozen=True)
class Rule:
    """One phrase.

    Attributes:
        id: its name in label sources.
        pattern: regular expression, searched in the normalised question (:func:`.prompts.question`).
        fine: the fine intent it decides.
        example: a prompt that it decides.
        overrides: whether it also overrules a teacher; only phrases that leave no doubt do.
    """

    id: str
    pattern: str
    fine: str
    example: str
    overrides: bool = False

    @property
    def intent(self) -> str:
        """The intent id that its fine intent belongs to."""
        return merge(self.fine)


# Quantifiers are bounded everywhere: no prompt makes a search slow.
_START = r"(?:^|[.!?:,] )"
_WHAT = r"\b(?:what|which)(?:'s| is| are| was| were)?"
_COLOURS = r"(?:red|orange|yellow|green|blue|purple|violet|pink|brown|black|white|gr[ae]y|beige|gold|silver|dark|light)"
_NUMBERS = r"(?:one|two|three|four|five|six|seven|eight|nine|ten|\d{1,3})"
_PICTURE = r"(?:picture|image|photo|photograph|scene|video|drawing|figure)"
_SIDE = r"(?:left|right|above|below|over|under|underneath|behind|in front|inside|outside|top|bottom)"
_THING = (
    r"(?:object|thing|item|animal|creature|food|fruit|vegetable|vehicle|tool|toy|instrument|utensil|device|"
    r"appliance|furniture)s?"
)

RULES: tuple[Rule, ...] = (
    Rule(
        "arithmetic-more",
        r"\bhow (?:many|much) (?:more|fewer|less|higher|lower|larger|smaller|cheaper|older|taller)\b",
        "arithmetic_reasoning",
        "How many more apples than pears are there?",
    ),
    Rule(
        "arithmetic-of",
        r"\b(?:sum|total|difference|average|mean|median|ratio|percentage)"
        r" (?:of|between|in|price|cost|amount|value|score)\b",
        "arithmetic_reasoning",
        "What is the difference between the two bars?",
    ),
    Rule("count-how-many", r"\bhow many\b", "object_counting", "How many dogs are there?", True),
    Rule(
        "count-number-of",
        r"(?<!phone )(?<!serial )\bnumber of (?!the\b|this\b|that\b|his\b|her\b|its\b)\w",
        "object_counting",
        "What is the number of cups?",
    ),
    Rule("count-please", _START + r"(?:please )?count\b", "object_counting", "Count the birds.", True),
    Rule(
        "count-check",
        rf"\b(?:is|are) there (?:(?:exactly|only|just|more than|fewer than|less than|at least|at most) {_NUMBERS}"
        r"|(?:two|three|four|five|six|seven|eight|nine|ten|\d{1,3}))\b",
        "object_counting",
        "Are there three people in the image?",
    ),
    Rule(
        "exists-there",
        _START + r"(?:is|are|was|were|isn't|aren't) there\b",
        "existence_check",
        "Is there a dog in the picture?",
        True,
    ),
    Rule(
        "exists-show",
        rf"\b(?:do|does|did) (?:the|this|that|these) {_PICTURE}s? (?:show|contain|have|include|depict|feature)\b",
        "existence_check",
        "Does the picture show a cat?",
        True,
    ),
    Rule(
        "exists-see",
        _START + r"(?:can|could|do|did) (?:you|we|i) (?:see|spot|find|notice)\b",
        "existence_check",
        "Can you see a bus?",
    ),
    Rule(
        "attribute-colour",
        _WHAT + r"(?: the)?(?: \w{1,30})? colou?rs?\b",
        "visual_attribute",
        "What color is it?",
        True,
    ),
    Rule(
        "attribute-colour-choice",
        rf"\b{_COLOURS}(?:,? {_COLOURS}){{0,4}},? or {_COLOURS}\b"
        rf"|^(?:is|are|was|were) (?:the|this|that|these|those|his|her|its) [^?]{{1,40}} {_COLOURS} ?\??$",
        "visual_attribute",
        "Is the car red or blue?",
    ),
    Rule("attribute-breed", r"\b(?:breed|species)\b", "breed_or_kind", "What breed is the dog?", True),
    Rule(
        "attribute-brand",
        r"\b(?:what|which) (?:is the )?(?:brand|make|model)\b",
        "breed_or_kind",
        "What brand is the vehicle?",
    ),
    Rule(
        "attribute-material",
        _WHAT + r"(?: the)?(?: kind of| type of)? material\b|\bmade (?:out )?(?:of|from)\b",
        "visual_attribute",
        "What material is the table made of?",
        True,
    ),
    Rule(
        "attribute-look",
        _WHAT + r"(?: the)? (?:shape|size|pattern|texture|age|height|gender|hairstyle|condition)\b"
        r"|\bhow (?:big|large|small|tall|old|wide|heavy|thick|deep|clean|dirty|ripe)\b",
        "visual_attribute",
        "What shape is the table?",
    ),
    Rule(
        "text-author",
        r"\bwho (?:wrote|authored|signed|published)\b|\b(?:author|title) of\b",
        "text_reading",
        "Who wrote this book?",
        True,
    ),
    Rule(
        "text-written",
        r"\b(?:written|printed|engraved|inscribed|spelled|spelt|handwritten)\b",
        "text_reading",
        "What is written on the wall?",
        True,
    ),
    Rule(
        "text-say",
        r"\bwhat (?:do|does|did) [^?]{1,60}?\b(?:say|read|spell)\b|\bwhat time (?:does|is it on|is shown)\b",
        "text_reading",
        "What does the sign say?",
        True,
    ),
    Rule(
        "text-read",
        _START + r"(?:please )?(?:read|transcribe|ocr)\b|\b(?:can|could) you read\b",
        "text_reading",
        "Read the sign.",
    ),
    Rule(
        "text-word",
        _WHAT + r"(?: the)?(?: first| last| \w{1,30})? (?:text|words?|letters?|captions?|headline|slogan|title|"
        r"license plate|licence plate|website|url|date|price|digits?)\b"
        r"|\bwhat(?:'s| is)?(?: the)?(?: \w{1,30})? number\b"
        r"|\bwhat(?:'s| is) on the (?:sign|label|screen|poster|banner|billboard|cover|page)\b"
        r"|\bname of (?:the|this) (?:store|shop|street|restaurant|company|brand|book|movie|hotel|team|product)\b"
        r"|\bhow much (?:is|are|does|do)\b",
        "text_reading",
        "What number is on the jersey?",
    ),
    Rule(
        "symbol",
        r"\bwhat (?:do|does|did) [^?]{1,60}?\b(?:mean|symboli[sz]e|represent|stand for|indicate)\b"
        r"|\b(?:what|which|whose)(?: [\w']{1,30}){0,3} (?:logo|emblem|icon|symbol|flag)\b",
        "symbol_meaning",
        "Which country's flag is this?",
    ),
    Rule(
        "time-order",
        r"\bwhat (?:will|would|might|could|is going to|happens?|happened|did)\b[^?]{0,60}"
        r"\b(?:next|after|before|then|first|last|afterwards)\b"
        r"|\b(?:comes|come|happens|happen|happened) (?:first|last|next|before|after)\b|\bin (?:what|which) order\b",
        "temporal_order",
        "What happens after the man opens the door?",
    ),
    Rule(
        "scene-conditions",
        r"\b(?:weather|season|time of (?:the )?day|lighting|mood|atmosphere)\b"
        r"|\bis it (?:day|night|sunny|cloudy|raining|rainy|snowing|windy|dark|daytime|nighttime|summer|winter)\b"
        r"|\b(?:day|daytime) or (?:night|nighttime)\b",
        "scene_conditions",
        "What season is it?",
    ),
    Rule(
        "scene-place",
        r"\b(?:what|which)(?:'s| is| was)?(?: the)?(?: kind of| type of| sort of)? (?:place|room|location|scene|"
        r"scenery|setting|environment|landscape|landmark|city|country|continent|building|event|occasion)\b",
        "place_type",
        "What kind of place is this?",
        True,
    ),
    Rule(
        "scene-taken",
        r"\bwhere (?:was|is|were|are) (?:this|the|that|these|it)(?: \w{1,30})?(?: being)? (?:taken|shot|captured)\b"
        r"|\bwhere (?:is this|are these people|are they|are we)\b",
        "place_type",
        "Where was this picture taken?",
        True,
    ),
    Rule(
        "scene-inside",
        r"\b(?:indoors?|inside) or (?:outdoors?|outside)\b|\b(?:outdoors?|outside) or (?:indoors?|inside)\b",
        "place_type",
        "Is this indoors or outdoors?",
    ),
    Rule(
        "purpose",
        r"\b(?:purpose|function) of\b|\bus(?:e|es|ed|ing)\b[^?]{0,40}\bfor\b|\bwhat (?:is|are) [^?]{1,40}\bused to\b"
        r"|\bwhat (?:is|are) (?:the|this|that|these|those) [^?]{1,40} for ?\??$|\bintention\b",
        "purpose_or_reason",
        "What is the knife used for?",
        True,
    ),
    Rule(
        "reason",
        r"\bwhy\b|\b(?:for what|what is the|what's the) reason\b",
        "purpose_or_reason",
        "Why is the man wearing a helmet?",
    ),
    Rule(
        "action-doing",
        r"\bwhat(?:'s| is| are| was| were)\b[^?]{0,80}\bdoing\b|\b(?:doing|performing) (?:what|which)\b",
        "action_or_interaction",
        "What is the woman doing?",
        True,
    ),
    Rule(
        "action-name",
        _WHAT + r"(?: the)? (?:action|activity|sport|game|exercise|gesture)\b|\binteract(?:s|ing|ion)?\b",
        "action_or_interaction",
        "What sport is being played?",
    ),
    Rule(
        "space-choice",
        rf"\b{_SIDE}(?: of)?,? or (?:to the |on the |at the )?{_SIDE}\b",
        "spatial_relation",
        "Is the cup left or right of the plate?",
        True,
    ),
    Rule(
        "space-side",
        r"\b(?:which|what) (?:side|direction|corner|half)\b",
        "spatial_relation",
        "Which side of the road is the car on?",
        True,
    ),
    Rule(
        "space-where",
        r"\bwhere(?:'s| is| are| was| were| do| does| can)\b",
        "spatial_relation",
        "Where is the cat?",
    ),
    Rule(
        "exists-visible",
        rf"^(?:is|are) [^?]{{1,80}} (?:visible|present|shown|(?:in|on) (?:the|this) {_PICTURE}) ?\??$",
        "existence_check",
        "Is a bicycle visible?",
    ),
    Rule(
        "space-relation",
        r"\b(?:to|on|at|in) the (?:far )?(?:left|right|top|bottom)\b"
        r"|\b(?:next to|in front of|behind|beside|above|below|beneath|underneath|on top of|opposite|"
        r"closest to|nearest to|farthest from|position of)\b",
        "spatial_relation",
        "What is next to the lamp?",
    ),
    Rule(
        "object-which",
        rf"{_WHAT}(?: (?:the|this|that|these|those))?(?: \w{{1,30}}){{0,3}} {_THING}\b",
        "object_identity",
        "What is the red object?",
    ),
    Rule(
        "object-name",
        _START + r"(?:please )?(?:name|identify) (?:the|this|that|these|those|an?|all|each)\b",
        "object_identity",
        "Name the object in the middle.",
    ),
    Rule(
        "attribute-kind",
        r"\b(?:what|which) (?:kinds?|types?|sorts?|variety|style) of\b",
        "breed_or_kind",
        "What kind of dog is this?",
    ),
    Rule(
        "object-what",
        r"\bwho (?:is|are)\b|\bwhat(?:'s| is| are) (?:this|that|these|those|it|in|on|inside|under)\b"
        r"|\bwhat (?:is|are) [^?]{1,40} (?:holding|wearing|eating|drinking|riding|carrying|playing with)\b",
        "object_identity",
        "What is the man holding?",
    ),
)


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def matches(prompt: str) -> list[Rule]:
    """Every rule that matches, in the order of RULES; the first one decides."""
    text = question(normalise(prompt))
    return [rule for rule in RULES if _compiled(rule.pattern).search(text)]


def match(prompt: str, *, overriding: bool = False) -> Rule | None:
    """The rule that decides a prompt, or None where no rule matches.

    Args:
        prompt: any text.
        overriding: return the deciding rule only if it may overrule a teacher.
    """
    text = question(normalise(prompt))
    for rule in RULES:
        if _compiled(rule.pattern).search(text):
            return rule if rule.overrides or not overriding else None
    return None


@cache
def rules_digest() -> str:
    """SHA-256 of all rules in their order: what labels name as their template."""
    return digest([[rule.id, rule.pattern, rule.fine, rule.overrides] for rule in RULES])
