"""Profiles broken by hand, one place each: the classes, the calibration, a user's own intents."""

from __future__ import annotations

from typing import Any

from broken_rows import GONE, NO_DIGEST, NO_NAME, NO_TOKENS, Raw, Row, valid, wrong

NO_COUNT: tuple[Any, ...] = (GONE, None, "5", 5.0, True, -1, 2**53 + 1, [5])
NO_SHARE: tuple[Any, ...] = (GONE, "0.5", True, -1e-9, 1.0000001, 71.0, [0.5], {})
NO_DIFFERENCE: tuple[Any, ...] = (GONE, "0.0", False, -1.0000001, 1.0000001, 2, [0.0])
NO_ID: tuple[Any, ...] = (GONE, None, "", "Text", "1text", "te xt", "тext", "ｔｅｘｔ", "t" * 33, "text\n", "<b>", 1)

CLASSES: tuple[Row, ...] = (
    *wrong("classes", GONE, None, {}, "nine", valid("plain")["classes"][:1], [valid("plain")["classes"][0]] * 27),
    *wrong("classes", valid("plain")["classes"][:8], valid("plain")["classes"] + valid("plain")["classes"][:1]),
    *wrong("classes", valid("plain")["classes"][::-1], field="classes[0].intent"),
    *wrong("classes", [{}] * 300, [None] * 257),
    *wrong("classes[0]", None, [], "object", field="classes[0]"),
    *wrong("classes[8].bonus", 1),
    *wrong("classes[1].intent", *NO_ID, "object", "scene"),
    *wrong("classes[1].prototype", *NO_NAME, None),
    *wrong("classes[3].layers", GONE, None, [], {}, "3,14,23", 23, list(range(65)), [0] * 300),
    *wrong("classes[3].layers", [14, 3, 23], [3, 3, 23], [23, 14, 3], [3, 14, 25], [3, 14, 511]),
    *wrong("classes[3].layers", [3, 14], [1, 3, 14, 23], field="classes[3].scores"),
    *wrong("classes[3].layers[0]", None, "3", 3.0, True, -1, 512, [3]),
    *wrong("classes[3].scores", GONE, None, [], {}, 1.0, [0.5] * 65, [1.0], [0.25, 0.5, 1.0, 1.0]),
    *wrong("classes[3].scores[1]", None, "0.5", True, 1e5, -1e5, [0.5]),
    *wrong("classes[3].scores[1]", 0.51, -0.5, field="classes[3].weights"),
    *wrong("classes[3].scores[1]", Raw("NaN"), Raw("1e999"), field="(file)"),
    *wrong("classes[3].tau", GONE, None, "4", True, 0, 0.0, -4.0, 10001, [4.0]),
    *wrong("classes[3].tau", 4.1, 1e4, 5e-324, field="classes[3].weights"),
    *wrong("classes[3].tau", Raw("Infinity"), field="(file)"),
    *wrong("classes[3].weights", GONE, None, [], {}, [0.2, 0.3, 0.5], [1.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]),
    *wrong("classes[3].weights[0]", None, "0.1", True, -0.1, 1.1, [0.1]),
    *wrong("classes[3].weights[0]", 0.5, 0, field="classes[3].weights"),
    *wrong("classes[4].rho", *NO_SHARE, None),
    *wrong("classes[4].rho", Raw("NaN"), Raw("-1e999"), Raw("0.5, \"rho\": 0.5"), field="(file)"),
    *wrong("classes[5].decision", GONE, None, "", "guessed", "Searched", 1, True),
    *wrong("classes[5].reason", GONE, None, "x" * 401, "a\nb", "\x1b]0;x\x07", "\x85", 1, []),
    *wrong("classes[5].n_search", *NO_COUNT),
    *wrong("classes[5].n_holdout", *NO_COUNT),
    *wrong("classes[5].score", *NO_SHARE),
    *wrong("classes[5].default_score", *NO_SHARE),
    *wrong("classes[5].difference", *NO_DIFFERENCE),
    *wrong("classes[5].ci_low", *NO_DIFFERENCE, 0.5, 0.0350001),
    *wrong("classes[5].ci_high", *NO_DIFFERENCE),
    *wrong("classes[5].ci_high", 0.0, -1.0, field="classes[5].ci_low"),
    *wrong("classes[5].p_value", *NO_SHARE),
    *wrong("classes[3].stages", [], {}, "2:90", 90, [{"after_layer": 2, "keep": 90}] * 9, base="stages"),
    *wrong("classes[3].stages", [{"after_layer": 2, "keep": 90}], [{"after_layer": 2, "keep": 9}] * 3, base="stages"),
    *wrong("classes[3].stages[0].after_layer", GONE, None, "2", 2.0, -2, 512, base="stages"),
    *wrong("classes[3].stages[0].after_layer", 3, 0, -1, base="stages", field="classes[3].stages"),
    *wrong("classes[3].stages[1].keep", *NO_TOKENS, base="stages"),
    *wrong("classes[3].stages[1].keep", 91, 577, base="stages", field="classes[3].stages"),
    *wrong("classes[3].stages[1].extra", 1, base="stages"),
)

CALIBRATION: tuple[Row, ...] = (
    *wrong("calibration", GONE, None, [], 1),
    *wrong("calibration.url", "x"),
    *wrong("calibration.datasets", GONE, None, {}, "mini", [{}] * 257),
    *wrong("calibration.datasets[0]", None, [], "mini"),
    *wrong("calibration.datasets[0].url", "x"),
    *wrong("calibration.datasets[0].name", *NO_NAME, None),
    *wrong("calibration.datasets[0].revision", *NO_NAME),
    *wrong("calibration.datasets[0].split", *NO_NAME),
    *wrong("calibration.datasets[0].samples", *NO_COUNT),
    *wrong("calibration.seed", GONE, None, "7", 7.0, True, -1, 2**63),
    *wrong("calibration.seed", 2**63 + 1, 10**30, field="(file)"),
    *wrong("calibration.scorers", GONE, None, {}, "exact_match@1", ["exact_match@1"] * 65),
    *wrong("calibration.scorers[0]", None, "", "exact_match", "Exact@1", "exact@", "@1", "a@1 ", "a@1234567", 1),
    *wrong("calibration.label_sources", GONE, None, [], {str(number): 1 for number in range(257)}),
    *wrong("calibration.label_sources.rule", None, "5", 5.0, True, -1, 2**53 + 1),
    *wrong("calibration.label_sources.", 1, field="calibration.label_sources"),
    *wrong("calibration.label_sources.a\nb", 1, field="calibration.label_sources.a\\nb"),
    *wrong("calibration.environment", GONE, None, [], {str(number): "" for number in range(257)}),
    *wrong("calibration.environment.python", None, 3.11, "\x07", "x" * 401, ["3.11"]),
    *wrong("calibration.environment." + "k" * 257, "", field="calibration.environment." + "k" * 80 + "..."),
    *wrong("calibration.ledger_sha256", *NO_DIGEST),
    *wrong("calibration.candidate_evaluations", *NO_COUNT),
    *wrong("calibration.vision_passes", *NO_COUNT),
)

INTENTS: tuple[Row, ...] = (
    *wrong("intents", [], {}, "own", 2, valid("own")["intents"][:1], [{}] * 300, base="own"),
    *wrong("intents", [{}] * 27, base="own", field="intents[0].id"),
    *wrong("intents", GONE, None, base="own", field="taxonomy"),
    *wrong("intents", valid("own")["intents"][::-1], base="own", field="taxonomy"),
    *wrong("intents", valid("own")["intents"], base="plain", field="taxonomy"),
    *wrong("intents", [valid("own")["intents"][0]] * 2, base="own"),
    *wrong("intents[0]", None, [], "alpha", base="own"),
    *wrong("intents[0].icon", "x", base="own"),
    *wrong("intents[0].id", *NO_ID, base="own"),
    *wrong("intents[0].id", "beta", base="own", field="intents"),
    *wrong("intents[0].id", "gamma", base="own", field="taxonomy"),
    *wrong("intents[0].name", GONE, None, "", "x" * 61, "a\nb", "\x1b[1m", "\u202eevil", "\u200b", 1, [], base="own"),
    *wrong("intents[0].name", "Another", base="own", field="taxonomy"),
    *wrong("intents[0].fine", GONE, None, [], {}, "alpha_1", [f"f{number}" for number in range(27)], base="own"),
    *wrong("intents[0].fine", ["a", "a"], ["beta_1"], base="own", field="intents"),
    *wrong("intents[0].fine", [f"f{number}" for number in range(26)], base="own", field="intents"),
    *wrong("intents[0].fine[1]", None, "", "Fine", "a b", "f" * 33, 1, base="own"),
    *wrong("router.kind", "rules", base="own", field="router.rules_version"),
    *wrong("classes[1].intent", "alpha", "gamma", "object", base="own"),
)
