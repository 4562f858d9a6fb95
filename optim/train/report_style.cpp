#include "hone/optim/train/report.h"

namespace hone::train::detail {

// Two hues (blue: right, orange: wrong) that colour-blind readers tell apart; contrast at least 4.5:1 in both themes.
const char* const kReportStyle = R"css(
:root { color-scheme: light dark;
  --page: #f6f7f9; --card: #fff; --ink: #16191f; --soft: #5a6270; --line: #dfe3e8; --grid: #e8ebef;
  --c0: #1f5fd0; --c1: #c2570c; --c2: #0f7b5f; --c3: #8a3fb4; --c4: #b3123f; --c5: #4d5562; --right: 31 95 208; --wrong: 217 105 20; }
@media (prefers-color-scheme: dark) { :root {
  --page: #101318; --card: #191d24; --ink: #e8ebf0; --soft: #a0a9b8; --line: #2d343f; --grid: #262c36;
  --c0: #78a9ff; --c1: #ff9d57; --c2: #5ed3ae; --c3: #d0a1f0; --c4: #ff8fa8; --c5: #c3cad6; --right: 88 148 255; --wrong: 255 138 61; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 40px 24px 64px; }
h1 { font-size: 30px; line-height: 1.2; letter-spacing: -.01em; margin: 0 0 6px; }
h2 { font-size: 18px; margin: 0 0 4px; }
.lead, .hint { color: var(--soft); margin: 0 0 20px; max-width: 75ch; }
.hint { font-size: 14px; margin-bottom: 16px; }
section, .charts figure { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 20px 22px;
  margin: 0 0 20px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin: 24px 0 20px; padding: 0; }
.tiles div { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 14px 18px;
  display: flex; flex-direction: column-reverse; justify-content: flex-end; }
.tiles dt { color: var(--soft); font-size: 13px; }
.tiles dd { margin: 0; font-size: 25px; font-weight: 650; letter-spacing: -.01em; font-variant-numeric: tabular-nums; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(440px, 100%), 1fr)); gap: 0 20px; }
figure { margin: 0; }
figcaption { font-weight: 650; font-size: 18px; margin-bottom: 8px; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg text { font-size: 13px; fill: var(--soft); font-variant-numeric: tabular-nums; }
svg .grid { stroke: var(--grid); } svg .axis { stroke: var(--line); }
svg .k0 { --k: var(--c0); } svg .k1 { --k: var(--c1); } svg .k2 { --k: var(--c2); } svg .k3 { --k: var(--c3); }
svg .k4 { --k: var(--c4); } svg .k5 { --k: var(--c5); }
svg .curve { fill: none; stroke: var(--k); stroke-width: 2.25; stroke-linejoin: round; stroke-linecap: round; }
svg .k1 .curve, svg line.k1 { stroke-dasharray: 7 4; } svg .k2 .curve, svg line.k2 { stroke-dasharray: 2 4; }
svg .k3 .curve, svg line.k3 { stroke-dasharray: 9 3 2 3; } svg .k4 .curve, svg line.k4 { stroke-dasharray: 14 4; }
svg .k5 .curve, svg line.k5 { stroke-dasharray: 4 3; }
svg .dot { fill: var(--k); stroke: var(--card); stroke-width: 1.5; }
svg .key { stroke: var(--k); stroke-width: 2.5; } svg .name { fill: var(--ink); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 14px; }
caption { text-align: left; color: var(--soft); font-size: 14px; padding-bottom: 12px; }
th { font-weight: 550; text-align: left; }
.plain { width: 100%; }
.plain th, .plain td { padding: 7px 12px; border-top: 1px solid var(--line); }
.plain td, .plain thead th:not(:first-child) { text-align: right; }
.plain thead th { color: var(--soft); border-top: 0; font-size: 13px; vertical-align: bottom; }
.plain tfoot th, .plain tfoot td { border-top: 2px solid var(--line); font-weight: 650; }
.plain .bar { background: linear-gradient(to right, rgb(var(--right) / .75) var(--v), rgb(var(--right) / .12) var(--v))
  12px 100% / calc(100% - 24px) 4px no-repeat; padding-bottom: 9px; }
.matrix { border-collapse: separate; border-spacing: 3px; width: 100%; table-layout: auto; }
.matrix td { min-width: 46px; height: 42px; width: 8%; text-align: center; border-radius: 5px; padding: 0 4px; }
.matrix .hit { background: rgb(var(--right) / var(--a)); font-weight: 650; }
.matrix .miss { background: rgb(var(--wrong) / var(--a)); }
.matrix .none { color: var(--soft); opacity: .75; }
.matrix thead th { vertical-align: bottom; font-size: 13px; text-align: center; padding: 4px 0; }
.matrix .upright { writing-mode: vertical-rl; transform: rotate(180deg); margin: 0 auto; white-space: nowrap; }
.matrix tbody th { text-align: right; padding: 0 10px 0 0; font-size: 13px; white-space: nowrap; }
.matrix .axis { color: var(--soft); font-weight: 400; }
.mistakes { display: grid; grid-template-columns: repeat(auto-fill, minmax(112px, 1fr)); gap: 14px; margin: 0; padding: 0;
  list-style: none; }
.mistakes li { border: 1px solid var(--line); border-radius: 10px; overflow: hidden; font-size: 13px; line-height: 1.4; }
.mistakes img { display: block; width: 100%; aspect-ratio: 1; image-rendering: pixelated; background: #000; object-fit: contain; }
.mistakes p { margin: 0; padding: 8px 10px; overflow-wrap: anywhere; }
.mistakes .as { color: var(--c1); font-weight: 650; } .mistakes .sure { color: var(--soft); white-space: nowrap; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(320px, 100%), 1fr)); gap: 0 40px; }
.facts table { width: 100%; align-self: start; } .facts td { overflow-wrap: anywhere; }
footer { color: var(--soft); font-size: 13px; }
@media (max-width: 560px) { main { padding: 24px 12px; } section, .charts figure { padding: 14px; } }
@media print { body { background: #fff; } section, figure { break-inside: avoid; } .matrix td, .bar { print-color-adjust: exact;
  -webkit-print-color-adjust: exact; } }
)css";

}  // namespace hone::train::detail
