"""The page of ``claspkit demo``: self-contained, light and dark, from phone width up, usable by keyboard alone."""

from __future__ import annotations

import html
import json
from string import Template
from typing import Any

from .demo_script import SCRIPT

_STYLE = """
:root{color-scheme:light dark;--paper:#fff;--ink:#1c1c1e;--soft:#5c5c66;--line:#c9c9d1;--panel:#f5f5f8;--accent:#0b57d0;
 --on:#fff;--bad:#b3261e;--pivot:#005adc;--completion:#d6281e}
@media (prefers-color-scheme:dark){:root{--paper:#16171a;--ink:#ececf0;--soft:#a7a7b3;--line:#44454d;--panel:#202126;
 --accent:#a8c7fa;--on:#0b1d3a;--bad:#f2b8b5;--pivot:#7fb0ff;--completion:#ff8f86}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
header,main{max-width:76rem;margin:0 auto;padding:1rem}
header{padding-bottom:0}
h1{font-size:1.35rem;margin:0}
h2{font-size:1.05rem;margin:0 0 .5rem}
p{margin:.25rem 0}
.soft{color:var(--soft)}.small{font-size:.9rem}
main{display:grid;gap:1.5rem;grid-template-columns:minmax(0,1fr)}
@media (min-width:60rem){main{grid-template-columns:22rem minmax(0,1fr)}form{position:sticky;top:1rem;align-self:start;
 max-height:calc(100vh - 2rem);overflow-y:auto;scroll-padding-bottom:6rem}
 .send{position:sticky;bottom:0;background:var(--paper);padding-top:.5rem}form #preview{max-height:8rem}}
fieldset{border:1px solid var(--line);border-radius:.5rem;margin:0 0 1rem;padding:.5rem .75rem .75rem;min-width:0}
legend{font-weight:600;padding:0 .25rem}
.examples{display:grid;grid-template-columns:repeat(3,minmax(0,1fr));gap:.5rem;margin-bottom:.5rem}
.examples.many{max-height:18rem;overflow-y:auto}
.examples label{position:relative;cursor:pointer;display:block}
.examples input{position:absolute;opacity:0;inset:0;width:100%;height:100%;margin:0;cursor:pointer}
.examples img{display:block;width:100%;aspect-ratio:1;object-fit:cover;border-radius:.35rem;
 border:3px solid transparent}
.examples input:checked+img{border-color:var(--accent)}
.examples input:focus-visible+img{outline:3px solid var(--accent);outline-offset:2px}
label.field{display:block;font-weight:600;margin:.25rem 0}select+label.field{margin-top:.75rem}
textarea,select,input[type=file]{width:100%;max-width:100%;font:inherit;color:inherit;background:var(--panel);
 border:1px solid var(--line);border-radius:.35rem;padding:.45rem}
textarea{min-height:4.5rem;resize:vertical}
:focus-visible{outline:3px solid var(--accent);outline-offset:2px}
button{font:inherit;font-weight:600;width:100%;padding:.6rem 1rem;border:0;border-radius:.35rem;
 background:var(--accent); color:var(--on);cursor:pointer}
button:disabled{opacity:.6;cursor:progress}
.check{display:flex;gap:.5rem;align-items:center;margin:.5rem 0}
#status{min-height:1.5rem;margin:.5rem 0}
#status.bad{color:var(--bad);font-weight:600}
#preview{max-width:100%;max-height:14rem;border-radius:.35rem;margin-top:.5rem}
article{border:1px solid var(--line);border-radius:.5rem;padding:1rem;margin:0 0 1rem}
article h2{overflow-wrap:anywhere}
.answers{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(13rem,100%),1fr));gap:.75rem;margin:.75rem 0}
.answers div{background:var(--panel);border-radius:.35rem;padding:.6rem .75rem;overflow-wrap:anywhere}
.answers b{display:block;font-size:1.15rem;white-space:pre-wrap}
dl{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:.1rem .75rem;margin:.5rem 0}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
.stages{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(13rem,100%),1fr));gap:.75rem}
figure{margin:0}
figure img{display:block;width:100%;max-width:26rem;border-radius:.35rem}
figcaption{font-size:.9rem}
.legend{font-size:.9rem;display:flex;flex-wrap:wrap;gap:.25rem 1rem;margin:.5rem 0 0;padding:0;list-style:none}
.legend i{display:inline-block;width:.9rem;height:.9rem;vertical-align:-.1rem;margin-right:.35rem;border:2px solid}
.legend .pivot{border-color:var(--pivot)}.legend .completion{border:2px dotted var(--completion)}
.legend .dropped{border-color:var(--line);background:var(--line)}
[hidden]{display:none!important}
"""

_BODY = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>claspkit demo: $model</title>
<style nonce="$nonce">$style</style>
</head>
<body>
<header><h1>Pruned visual tokens: $model</h1>
<p class="soft">Choose a picture, ask, and see which visual tokens each stage keeps.
Everything stays on this machine.</p>
</header>
<main>
<form id="form" aria-label="Question">
<fieldset><legend>Picture</legend>
<div class="examples$many" role="radiogroup" aria-label="Pictures to choose from">$examples</div>
<label class="field" for="file">or your own</label>
<input type="file" id="file" accept="image/*">
<img id="preview" alt="Your picture" hidden>
</fieldset>
<fieldset><legend>Question</legend>
<label class="field" for="prompt">Ask about the picture</label>
<textarea id="prompt" required maxlength="$max_prompt" aria-describedby="keys"></textarea>
<p class="soft small" id="keys">Enter asks; Shift and Enter start a new line.</p>
</fieldset>
<fieldset><legend>Pruning</legend>
<label class="field" for="profile">Budget (profile)</label>
<select id="profile">$profiles</select>
<label class="field" for="intent">Class</label>
<select id="intent"></select>
<label class="check"><input type="checkbox" id="compare" checked> also answer with all tokens</label>
</fieldset>
<div class="send"><button id="ask">Ask</button>
<p id="status" role="status"></p></div>
</form>
<section aria-label="Answers" id="answers" aria-live="polite">
<p class="soft" id="empty">Answers appear here, the newest first.</p>
</section>
</main>
<script type="application/json" id="facts" nonce="$nonce">$facts</script>
<script nonce="$nonce">$script</script>
</body>
</html>
""")


def render_page(facts: dict[str, Any], nonce: str) -> str:
    """Return the page.

    Args:
        facts: what :meth:`claspkit.calib.demo.Demo.facts` gives; every text in it is escaped.
        nonce: of the content security policy; style and script carry it.
    """
    examples = "".join(
        f'<label><input type="radio" name="picture" value="example:{number}"{" checked" if number == 0 else ""}>'
        f'<img src="/examples/{number}" alt="{html.escape(example["name"])}" loading="lazy"></label>'
        for number, example in enumerate(facts["examples"])
    )
    profiles = "".join(
        f'<option value="{number}">{html.escape(item["name"])}</option>'
        for number, item in enumerate(facts["profiles"])
    )
    # Inside a script element only "<" can end it or open a comment.
    data = json.dumps(facts).replace("<", "\\u003c")
    return _BODY.substitute(
        model=html.escape(facts["model"]),
        nonce=nonce,
        style=_STYLE,
        many=" many" if len(facts["examples"]) > 12 else "",
        examples=examples,
        profiles=profiles,
        max_prompt=facts["max_prompt"],
        facts=data,
        script=SCRIPT,
    )
