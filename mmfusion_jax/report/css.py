"""Style sheet of the report: light and dark, wide and narrow, screen and print."""

CSS = """
:root {
  color-scheme: light dark;
  --page: #f7f6f3; --card: #ffffff; --ink: #1c1f24; --soft: #5b6370; --grid: #e3e1dc;
  --first: #1f5fbf; --second: #c2571a; --third: #4d7a3a;
  --warn: #8a5a00; --warn-page: #fff5dd;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14161a; --card: #1d2026; --ink: #e9eaed; --soft: #a3abb8;
    --grid: #333842; --first: #7fb0ff; --second: #ffa36b; --third: #9ccf85;
    --warn: #f3c969; --warn-page: #2e2716;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
}
main { max-width: 62rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: clamp(1.5rem, 4.5vw, 2.1rem); line-height: 1.2; margin: 0 0 .35rem;
  letter-spacing: -.015em; text-wrap: balance; }
h2 { font-size: 1.15rem; margin: 0 0 .75rem; letter-spacing: -.005em; }
h3 { font-size: 1rem; margin: 1.25rem 0 .5rem; }
p { margin: 0 0 .75rem; max-width: 46rem; }
.caption, .note { color: var(--soft); font-size: .875rem; }
.caption { margin: 0 0 .35rem; }
.scroll + .note { margin: .9rem 0 0; }
section { background: var(--card); border: 1px solid var(--grid); border-radius: 12px;
  padding: 1.4rem 1.5rem; margin-top: 1.1rem; }
.lead { font-size: 1.075rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr));
  gap: .75rem; margin-top: 1.4rem; }
.tile { background: var(--card); border: 1px solid var(--grid); border-radius: 12px;
  padding: .9rem 1rem; }
.tile b { display: block; font-size: 1.45rem; line-height: 1.25; font-weight: 650;
  letter-spacing: -.02em; font-variant-numeric: tabular-nums; }
.tile b small { font-size: .95rem; font-weight: 500; opacity: .85; }
.tile span { color: var(--soft); font-size: .85rem; }
.tile.main { background: var(--first); border-color: var(--first); }
.tile.main, .tile.main span { color: var(--card); }
.warning { border-left: 4px solid var(--warn); background: var(--warn-page);
  border-radius: 6px; padding: .6rem .9rem; margin: .6rem 0; max-width: none; }
.warning b { color: var(--warn); }
.scroll { overflow-x: auto; }
.scroll:focus-visible, summary:focus-visible { outline: 2px solid var(--first);
  outline-offset: 3px; border-radius: 4px; }
table { border-collapse: collapse; width: 100%; font-size: .925rem;
  font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .42rem .8rem .42rem 0; vertical-align: top;
  border-top: 1px solid var(--grid); }
thead th { border-top: 0; color: var(--soft); font-weight: 500; font-size: .85rem; }
tbody th { font-weight: 500; }
th:last-child, td:last-child { padding-right: 0; }
td, th { white-space: nowrap; }
table.numbers :is(td, th):not(:first-child) { text-align: right; }
table.small { width: auto; min-width: 16rem; }
table.prose td { white-space: normal; overflow-wrap: anywhere; }
tr:has(td.fused) th, td.fused { font-weight: 650; }
td.graph { width: 48%; min-width: 9rem; vertical-align: middle; }
.bar { position: relative; height: 1.05rem; border-radius: 3px;
  background: var(--grid); }
.bar i { position: absolute; inset: 0 auto 0 0; border-radius: 3px;
  background: var(--soft); }
.bar i.stage { background: var(--third); }
.bar i.fused { background: var(--first); }
.bar u { position: absolute; top: 50%; height: 2px; margin-top: -1px;
  background: var(--ink); }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(17rem, 1fr));
  gap: 1rem 1.5rem; }
.figures.wide { grid-template-columns: repeat(auto-fit,
  minmax(min(25rem, 100%), 1fr)); }
figure { margin: 0; }
figure svg { display: block; width: 100%; height: auto; }
.confusion { width: auto; font-size: .875rem; }
.confusion th, .confusion td { text-align: right; padding: .3rem .55rem;
  border: 2px solid var(--card); }
.confusion thead th { font-size: .8rem; }
.confusion td { min-width: 2.3rem; border-radius: 5px;
  background: color-mix(in srgb, var(--first) var(--fraction), var(--card)); }
.confusion td.high { color: var(--card); }
.confusion td.none { color: var(--soft); }
.confusion td.recall { background: none; padding-left: 1rem; color: var(--soft); }
pre, code { font: .875rem/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
pre { background: var(--page); border: 1px solid var(--grid); border-radius: 8px;
  padding: .7rem .9rem; margin: 0 0 .9rem; white-space: pre-wrap;
  overflow-wrap: anywhere; }
pre span { display: inline-block; max-width: 100%; }
details { margin-top: .8rem; }
summary { cursor: pointer; font-weight: 550; }
details > *:not(summary) { margin-top: .7rem; }
@media (max-width: 34rem) {
  main { padding: 1.5rem .8rem 3rem; }
  section { padding: 1.1rem 1rem; }
  td.graph { width: 22%; min-width: 3.5rem; }
  tbody th { white-space: normal; min-width: 5.5rem; }
  th, td { padding-right: .6rem; }
  table { font-size: .875rem; }
}
@media print {
  :root { color-scheme: light; --page: #fff; --card: #fff; --ink: #000;
    --soft: #444; --grid: #ccc; --first: #1f5fbf; --second: #c2571a;
    --third: #4d7a3a; --warn: #8a5a00; --warn-page: #fff; }
  body { font-size: 10.5pt; }
  main { max-width: none; padding: 0; }
  .tile, tr, figure, .bar { break-inside: avoid; }
  h2, .caption { break-after: avoid; }
  section { border-width: 1px 0 0; border-radius: 0; padding: 1rem 0; }
  .scroll { overflow: visible; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""
