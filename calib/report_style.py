"""The report's style sheet: light and dark, phone width, print. Colours are variables, so that charts need none."""

STYLE = """
:root{--page:#fff;--card:#f6f7f9;--ink:#1b1f24;--soft:#57606a;--edge:#d5dae0;--link:#0a58b8;--heat:8,70,150;
--onheat:#fff;--good:#0a6b4b;--goodbg:#dcf3e8;--s0:#3d4650;--s1:#0072b2;--s2:#b54900;--s3:#00795a;--s4:#a3478a}
@media (prefers-color-scheme:dark){:root{--page:#14171b;--card:#1d2126;--ink:#e7eaee;--soft:#a7b0ba;--edge:#3a424b;
--link:#7db8ff;--heat:40,110,200;--onheat:#fff;--good:#7fe0b8;--goodbg:#173a2e;--s0:#c9d1d9;--s1:#62b5ef;
--s2:#f59a55;--s3:#45cfa2;--s4:#e59bd0}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1180px;padding:0 16px 64px;background:var(--page);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;overflow-wrap:break-word}
h1{font-size:1.6rem;line-height:1.25;margin:28px 0 8px}h2{font-size:1.25rem;margin:48px 0 12px}
h3,h4{font-size:1rem;margin:0}section>h3,.budget>h3{margin-top:28px}a{color:var(--link)}
:focus-visible{outline:3px solid var(--link);outline-offset:2px}main:focus{outline:none}
.skip{position:absolute;left:-999px}.skip:focus{left:8px;top:8px;background:var(--page);padding:8px;z-index:2}
nav ul{display:flex;flex-wrap:wrap;gap:4px 18px;list-style:none;margin:0;padding:0}
.verdict{font-size:1.25rem;line-height:1.4;margin:24px 0 16px}.note{color:var(--soft);font-size:.9rem;max-width:80ch}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(104px,1fr));gap:10px;margin:0}
.tiles div{background:var(--card);border:1px solid var(--edge);border-radius:8px;padding:10px 14px}
.tiles dt{color:var(--soft)}.tiles dd{margin:0}.tiles b{display:block;font-size:1.7rem;line-height:1.3}
small{color:var(--soft);font-size:.85em;font-weight:400}
.scroll{overflow-x:auto;max-width:100%}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums;margin:8px 0;min-width:17rem}
caption{text-align:left;color:var(--soft);padding:4px 0}
caption span{display:block;position:sticky;left:0;width:fit-content;max-width:calc(100vw - 32px)}
th,td{text-align:left;vertical-align:top;padding:6px 12px 6px 0;border-bottom:1px solid var(--edge)}
thead th{color:var(--soft);font-weight:600;vertical-align:bottom}tbody th{font-weight:600}
.classes td{white-space:nowrap}.classes .reason{white-space:normal;min-width:11rem}
.classes th:first-child{position:sticky;left:0;background:var(--page);min-width:8rem}.classes small{display:block}
.badge{border:1px solid var(--edge);border-radius:10px;padding:1px 9px}
.badge.taken{background:var(--goodbg);color:var(--good);border-color:currentColor;font-weight:600}
figure{margin:0;background:var(--card);border:1px solid var(--edge);border-radius:8px;padding:14px;min-width:0}
.grid-of-charts figure{display:flex;flex-direction:column}.grid-of-charts svg{margin-top:auto}
figure.wide{max-width:660px;margin:16px 0}figure.plain{background:none;border:0;padding:0}
figure.wide table,.grid-of-charts table{font-size:.8rem}.grid-of-charts :is(th,td){padding-right:8px}
.grid-of-charts table{min-width:0}
figcaption{color:var(--soft);font-size:.88rem;margin:2px 0 8px}figcaption b{color:var(--ink)}
.grid-of-charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,320px),1fr));gap:14px}
.nothing{color:var(--soft);margin:4px 0}
.facts{display:grid;grid-template-columns:minmax(8rem,max-content) minmax(0,1fr);gap:4px 20px;margin:8px 0}
.facts dt{color:var(--soft)}.facts dd{margin:0;overflow-wrap:anywhere}
details{margin:8px 0}summary{cursor:pointer;color:var(--link);width:fit-content}
.budget{border:1px solid var(--edge);border-radius:8px;padding:4px 14px;margin:12px 0}.budget[open]{padding-bottom:18px}
.budget>summary{font-weight:600;padding:6px 0}
.budget>h3{font-size:1.1rem;border-top:1px solid var(--edge);padding-top:14px}
svg{display:block;max-width:100%;height:auto}.scroll svg{max-width:none}
svg text{font:11px system-ui,-apple-system,"Segoe UI",Roboto,Arial,sans-serif;fill:var(--ink)}
svg .tick{fill:var(--soft)}svg .name{font-size:11.5px}
.grid{stroke:var(--edge);fill:none}.axis{stroke:var(--soft);fill:none}
.s0{--c:var(--s0)}.s1{--c:var(--s1)}.s2{--c:var(--s2)}.s3{--c:var(--s3)}.s4{--c:var(--s4)}
.line{stroke:var(--c);stroke-width:1.8;fill:none}.mark{fill:var(--c)}.lead{stroke:var(--c);opacity:.45;fill:none}
.ring{fill:none;stroke:var(--ink);stroke-width:2}
svg .ringname{font-weight:700;paint-order:stroke;stroke:var(--card);stroke-width:4px;stroke-linejoin:round}
.whisker{stroke:var(--ink);stroke-width:1.8;fill:none}.whisker.taken{stroke:var(--good)}
.dot{stroke:var(--ink);stroke-width:2;fill:var(--card)}.dot.taken{stroke:var(--good);fill:var(--good)}
.error{stroke:var(--c);stroke-width:1;opacity:.28;fill:none}.error.whole{opacity:.75;stroke-width:1.4}
.line.thin{stroke-width:1.2}.bar{fill:rgb(var(--heat))}.bar.open{fill:none;stroke:rgb(var(--heat));stroke-dasharray:4 3}
.bar.saved{fill:none;stroke:var(--good);stroke-width:1.5;stroke-dasharray:5 3}.bar.whole{fill:var(--soft)}
.frame{fill:none;stroke-width:3}.frame.won{stroke:var(--s2)}.frame.kept{stroke:var(--ink);stroke-dasharray:4 3}
.zero{stroke:var(--ink);stroke-width:1.6;fill:none}
.empty{fill:none;stroke:var(--edge)}.heat{fill:rgb(var(--heat))}svg .strong{fill:var(--onheat);font-weight:600}
@media (max-width:600px){.facts{grid-template-columns:1fr;gap:0}.facts dd{margin-bottom:8px}
.classes .reason{min-width:17rem}.budget{padding:4px 8px}figure svg{overflow:visible}
.grid-of-charts svg text{font-size:12.5px}figure.wide svg text{font-size:16px}}
.hidden{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
@media print{figure,tr{break-inside:avoid}nav,.skip{display:none}
.budget::details-content{content-visibility:visible;block-size:auto}}
"""
