"""The style sheet of the page, for light and dark mode, screens and paper."""

STYLE = """
:root{color-scheme:light dark;
--bg:#fbfaf8;--card:#fff;--ink:#1d2126;--soft:#59616b;--line:#dfe1e4;--head:#f2f0ec;--link:#0b5cad;
--hot:213 94 0;--cold:0 114 178;--mark:#b3261e;
--c-policy:#0b5cad;--c-probe:#b04a00;--c-words:#1b7a52;--c-random:#7a7f87;--c-other:#7b4ea3;
--ok:#1b6e45;--ok-bg:#dff2e6;--mid:#7a5200;--mid-bg:#fdeec8;--bad:#8c2f26;--bad-bg:#fbe2de}
@media (prefers-color-scheme:dark){:root{
--bg:#15181c;--card:#1d2126;--ink:#e8eaed;--soft:#a4adb8;--line:#353b43;--head:#262b31;--link:#8ab8f0;
--hot:240 128 40;--cold:60 140 215;--mark:#ff8a80;
--c-policy:#7db4f5;--c-probe:#f5a35c;--c-words:#6fd0a2;--c-random:#a4adb8;--c-other:#c7a2ec;
--ok:#9be0b9;--ok-bg:#173626;--mid:#f4cf83;--mid-bg:#3d3014;--bad:#f7aea6;--bad-bg:#44201c}}
*{box-sizing:border-box}
html{scroll-behavior:smooth}
@media (prefers-reduced-motion:reduce){html{scroll-behavior:auto}}
body{margin:0;background:var(--bg);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue",sans-serif;font-variant-numeric:tabular-nums}
a{color:var(--link)}a:focus-visible,[tabindex]:focus-visible,summary:focus-visible{outline:3px solid var(--link);
outline-offset:2px}
.skip{position:absolute;left:-999rem}.skip:focus{left:1rem;top:1rem;background:var(--card);padding:.5rem 1rem}
header,main,footer{max-width:70rem;margin:0 auto;padding:0 1.5rem}
header{padding-top:3rem}
h1{font-size:2.1rem;line-height:1.2;margin:0 0 .4rem;letter-spacing:-.02em}
h2{font-size:1.45rem;margin:0;letter-spacing:-.01em}
h3{font-size:1.02rem;margin:2rem 0 .5rem}
h4{font-size:.95rem;margin:1.4rem 0 .2rem}
.lead{font-size:1.1rem;color:var(--soft);max-width:48rem;margin:.2rem 0 1rem}
.note,.from,.meta,footer{color:var(--soft);font-size:.9rem}
.note{max-width:52rem;margin:.2rem 0 .7rem}
.meta code{font-size:.85em}
.policy{background:var(--card);border:1px solid var(--line);border-radius:14px;padding:1.6rem 1.8rem 2rem;
margin:2rem 0;break-inside:avoid-page}
.top{display:flex;flex-wrap:wrap;gap:.6rem 1rem;align-items:baseline}
.pill{border-radius:99px;padding:.1rem .7rem;font-size:.82rem;font-weight:600;white-space:nowrap}
.stable{color:var(--ok);background:var(--ok-bg)}.beta{color:var(--mid);background:var(--mid-bg)}
.experimental{color:var(--bad);background:var(--bad-bg)}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(10rem,1fr));gap:.8rem;margin:1.2rem 0 .4rem;padding:0}
.facts div{border:1px solid var(--line);border-radius:10px;padding:.7rem .9rem}
.facts dt{font-size:.82rem;color:var(--soft)}.facts dd{margin:0;font-size:1.5rem;font-weight:650;letter-spacing:-.02em}
.facts dd small{font-size:.82rem;font-weight:400;color:var(--soft);letter-spacing:0;display:block}
.verdict{border-left:4px solid var(--c-policy);padding:.1rem 0 .1rem .9rem;margin:1rem 0;max-width:56rem}
.scroll{overflow-x:auto;margin:.4rem 0 1rem}
table{border-collapse:collapse;width:100%;font-size:.88rem}
caption{text-align:left;color:var(--soft);font-size:.86rem;padding:0 0 .4rem}
th,td{text-align:left;padding:.38rem .7rem;border-bottom:1px solid var(--line);vertical-align:top}
thead th{background:var(--head);font-weight:600;white-space:nowrap}
tbody th{font-weight:500}td{white-space:nowrap}
.wide tbody th{min-width:15rem}
td b{font-weight:650}.wrap{white-space:normal;display:inline-block;min-width:11rem}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr));gap:.5rem 2rem;
align-items:start}
figure{margin:.8rem 0}figcaption{font-size:.92rem;font-weight:600;margin-bottom:.2rem}
figcaption small{display:block;font-weight:400;color:var(--soft)}
.chart{width:100%;max-width:40rem;height:auto;display:block}
.chart text{fill:var(--ink);font-size:14px}.chart .tick,.chart .axis{fill:var(--soft);font-size:12.5px}
.chart .grid{stroke:var(--line);stroke-width:1}.chart .mark{stroke:var(--mark);stroke-width:1.5;stroke-dasharray:5 4}
.whisker{stroke:currentColor;stroke-width:3;stroke-linecap:round}.dot{fill:currentColor}.bar{fill:currentColor}
.curve{fill:none;stroke:currentColor;stroke-width:2.5;stroke-linejoin:round}
.c-policy{color:var(--c-policy)}.c-features,.c-combined,.c-linear_probe,.c-difference_of_means{color:var(--c-other)}
.c-probe{color:var(--c-probe)}.c-bag_of_words{color:var(--c-words)}.c-random_features,.c-benign{color:var(--c-random)}
.c-positive{color:var(--c-probe)}.c-negative{color:var(--c-other)}
.curve.c-policy{stroke-width:4}.curve.c-probe,.curve.c-features{stroke-dasharray:9 4}
.curve.c-bag_of_words{stroke-dasharray:3 4}.curve.c-random_features{stroke-dasharray:1 5;stroke-linecap:round}
.texts{list-style:none;padding:0;margin:.5rem 0}
.texts li{border-top:1px solid var(--line);padding:.6rem 0}.texts p{margin:.1rem 0}
.words{white-space:pre-wrap;overflow-wrap:anywhere}
.hot,.cold{border-radius:3px;padding:.1em 0}
.hot{background:rgb(var(--hot) / calc(var(--a) * .62))}.cold{background:rgb(var(--cold) / calc(var(--a) * .5))}
.strong{text-decoration:underline;text-decoration-thickness:2px;text-underline-offset:3px}
.far{font-weight:600}.far.on{color:var(--mark)}
.legend span{color:var(--ink);padding:.1em .5em;margin-right:.4em}
details{margin-top:1.2rem}summary{cursor:pointer;font-weight:600}
nav ul{columns:3 14rem;padding-left:1.1rem;margin:.4rem 0}
footer{padding-bottom:3rem}
@media print{body{background:#fff}.policy{border:0;padding:0}details{display:block}}
"""
