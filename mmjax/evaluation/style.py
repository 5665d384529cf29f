"""How the report looks: one style sheet, on paper and on screen."""

STYLE = """
:root { color-scheme: light; --ink: #1c2430; --muted: #667085;
  --line: #e4e7ec; --soft: #f8f9fb; --accent: #1d4ed8; --good: #067647;
  --good-soft: #ecfdf3; --bad: #b42318; --bad-soft: #fef3f2; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1120px; padding: 40px 28px 72px;
  background: #fff; color: var(--ink); line-height: 1.5;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 28px; line-height: 1.2; letter-spacing: -0.01em; margin: 0; }
h2 { font-size: 19px; margin: 44px 0 6px; padding-top: 18px;
  border-top: 1px solid var(--line); }
h3 { font-size: 15px; margin: 26px 0 6px; }
p { margin: 4px 0 12px; max-width: 76ch; }
.muted, figcaption, .note { color: var(--muted); }
.tiles { display: grid; gap: 12px; margin: 24px 0 0;
  grid-template-columns: repeat(auto-fill, minmax(190px, 1fr)); }
.tile { border: 1px solid var(--line); border-radius: 10px;
  padding: 14px 16px; }
.tile b { display: block; font-size: 28px; line-height: 1.25;
  font-weight: 600; font-variant-numeric: tabular-nums; }
.tile small { color: var(--muted); display: block; }
.pair { display: grid; gap: 8px 32px; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(440px, 100%), 1fr)); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px;
  font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; color: var(--muted);
  font-size: 12.5px; vertical-align: bottom; }
th, td { padding: 7px 12px 7px 0; border-bottom: 1px solid var(--line); }
td.number, th.number { text-align: right; }
td small { display: block; color: var(--muted); font-size: 12px; }
td.result { font-weight: 600; }
td small.up { color: var(--good); }
td small.down { color: var(--bad); }
figure { margin: 12px 0 4px; }
figure.chart figcaption { font-weight: 600; color: var(--ink);
  font-size: 14px; margin-bottom: 4px; }
svg { display: block; width: 100%; height: auto; }
svg text { font: 11.5px system-ui, sans-serif;
  font-variant-numeric: tabular-nums; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 2px 16px;
  margin: 2px 0 0 62px; padding: 0; font-size: 12.5px; color: var(--muted); }
.legend i { display: inline-block; width: 14px; height: 3px;
  border-radius: 2px; margin-right: 6px; vertical-align: middle; }
.episode { border: 1px solid var(--line); border-radius: 10px;
  padding: 14px 16px; margin: 12px 0; break-inside: avoid; }
.episode > header { display: flex; justify-content: space-between; gap: 12px;
  font-size: 13px; color: var(--muted); margin-bottom: 10px; }
.shown { display: flex; flex-wrap: wrap; gap: 10px; align-items: stretch; }
.shown figure { margin: 0; width: 132px; padding: 8px; border-radius: 8px;
  background: var(--soft); border: 1px solid transparent; }
.shown figure.query { background: #fff; border-color: var(--accent); }
.shown img { display: block; width: 100%; aspect-ratio: 1; border-radius: 4px;
  object-fit: contain; background: #fff; margin-bottom: 6px; }
.shown figcaption { font-size: 12.5px; line-height: 1.35; color: var(--ink);
  overflow-wrap: anywhere; white-space: pre-wrap; }
.answer { margin: 12px 0 0; font-size: 14px; overflow-wrap: anywhere; }
.truth { color: var(--muted); margin-left: 20px; }
.mark { border-radius: 999px; padding: 1px 9px; font-size: 12.5px;
  font-weight: 600; }
.good .mark { color: var(--good); background: var(--good-soft); }
.bad .mark { color: var(--bad); background: var(--bad-soft); }
.good .said { color: var(--good); font-weight: 600; }
.bad .said { color: var(--bad); font-weight: 600; }
details { margin: 16px 0; }
summary { cursor: pointer; color: var(--accent); }
pre { background: var(--soft); border-radius: 8px; padding: 14px 16px;
  overflow-x: auto; font: 12.5px/1.5 ui-monospace, Menlo, monospace; }
@media print { body { padding: 0; } h2 { break-after: avoid; } }
"""
