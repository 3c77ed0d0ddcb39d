"""The style sheet of the HTML report, for light and dark screens, narrow and wide ones, and print."""

STYLE = """
:root { --text:#1c1e21; --soft:#5a6069; --back:#ffffff; --panel:#f4f5f7; --line:#d9dce1;
  --good:#00734f; --fair:#8a5a00; --bad:#b23c00; --open:#0060a0; }
@media (prefers-color-scheme: dark) { :root { --text:#e4e6ea; --soft:#a3a9b3; --back:#16181b; --panel:#202327;
  --line:#3a3f46; --good:#3fc79a; --fair:#e5b13c; --bad:#ff8a4c; --open:#6cbcf5; } }
* { box-sizing:border-box; }
body { margin:0; background:var(--back); color:var(--text); font:16px/1.5 system-ui, sans-serif; }
main { max-width:1080px; margin:0 auto; padding:1rem 1rem 4rem; }
h1 { font-size:1.6rem; line-height:1.25; overflow-wrap:anywhere; }
h2 { font-size:1.2rem; margin:2.4rem 0 .6rem; padding-top:.6rem; border-top:1px solid var(--line); }
code { font:0.88em/1.4 ui-monospace, Menlo, Consolas, monospace; background:var(--panel); padding:.05em .3em;
  border-radius:3px; overflow-wrap:anywhere; }
.verdict { border:1px solid var(--line); border-left:6px solid var(--open); border-radius:6px;
  background:var(--panel); padding:.6rem 1.1rem; }
.verdict.good { border-left-color:var(--good); } .verdict.fair { border-left-color:var(--fair); }
.verdict.bad { border-left-color:var(--bad); }
.verdict .word { font-size:1.45rem; font-weight:650; margin:.2rem 0 .4rem; }
.verdict.good .word { color:var(--good); } .verdict.fair .word { color:var(--fair); }
.verdict.bad .word { color:var(--bad); } .verdict.open .word { color:var(--open); }
.verdict code { background:var(--back); }
.verdict ul { list-style:none; margin:0; padding:0; }
.verdict li { display:flex; gap:.6rem; margin:.35rem 0; } .mark { flex:0 0 1.1rem; text-align:center; }
li.good .mark { color:var(--good); } li.fair .mark { color:var(--fair); }
li.bad .mark { color:var(--bad); } li.open .mark { color:var(--open); }
.scroll { overflow-x:auto; margin:.6rem 0; } td code { white-space:nowrap; }
table { border-collapse:collapse; font-size:.92rem; }
th, td { text-align:left; padding:.28rem .8rem .28rem 0; border-bottom:1px solid var(--line);
  vertical-align:top; }
th { color:var(--soft); font-weight:600; }
td.n, th.n { text-align:right; font-variant-numeric:tabular-nums; white-space:nowrap; }
figure { margin:1rem 0 1.4rem; } figure div { overflow-x:auto; background:#fff; border:1px solid var(--line);
  border-radius:6px; }
img { display:block; width:100%; height:auto; min-width:560px; } figure.wide img { min-width:720px; }
figcaption { color:var(--soft); font-size:.92rem; margin-top:.4rem; }
summary { cursor:pointer; color:var(--soft); }
@media (max-width:640px) {
  .pairs thead { display:none; } .pairs tr { display:grid; grid-template-columns:9.5rem 1fr; }
  .pairs td { overflow-wrap:anywhere; } .pairs td code { white-space:normal; }
  table:not(.pairs) td, table:not(.pairs) th { white-space:nowrap; } }
@media print { main { max-width:none; } figure { break-inside:avoid; } img { min-width:0 !important; } }
"""
