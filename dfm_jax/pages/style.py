"""How `index.html` looks, and the few lines of script it needs. Nothing is fetched from anywhere."""

CSS = """
:root { color-scheme: light dark; --paper: #fbfbf9; --ink: #22242a; --soft: #666a73; --line: #dedfda; --card: #fff;
  --accent: #2f6fde; }
@media (prefers-color-scheme: dark) { :root { --paper: #15161a; --ink: #ececf0; --soft: #a0a4ae; --line: #30323a;
  --card: #1d1f25; --accent: #7fabff; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: clamp(1.7rem, 4.5vw, 2.5rem); line-height: 1.15; margin: 0 0 .6rem; letter-spacing: -.02em; }
h2 { font-size: 1.3rem; margin: 3rem 0 .4rem; letter-spacing: -.01em; }
h3 { font-size: 1rem; margin: 1.4rem 0 .5rem; }
p { max-width: 46rem; margin: .4rem 0 .8rem; }
.lead { font-size: 1.1rem; }
.soft, figcaption small { color: var(--soft); }
h3 .soft { font-weight: 400; margin-left: .4rem; }
a { color: var(--accent); }
summary { cursor: pointer; }
.facts { display: flex; flex-wrap: wrap; gap: .75rem; margin: 1.4rem 0 0; padding: 0; list-style: none; }
.facts li { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: .7rem 1rem;
  flex: 1 1 13rem; }
.facts b { display: block; font-size: 1.5rem; line-height: 1.2; }
.scene { background: var(--card); border: 1px solid var(--line); border-radius: 16px; padding: 1rem 1.25rem 1.4rem;
  margin: 1.2rem 0; }
.scene > h3:first-child { margin-top: 0; }
.turning { display: grid; grid-template-columns: minmax(8.5rem, 13rem) 1fr; gap: 1.5rem; align-items: start; }
.contexts { display: grid; gap: 1rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(7.4rem, 1fr)); gap: .8rem; }
.tiles.wide { grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); max-width: 58rem; }
.in-3d { margin-top: 1rem; }
.in-3d iframe { display: block; width: 100%; height: 30rem; border: 0; border-radius: 12px; margin-top: .6rem;
  background: #000; }
figure { margin: 0; }
figure img, figure video { display: block; width: 100%; aspect-ratio: 1; object-fit: contain; border-radius: 8px;
  background: #000; image-rendering: pixelated; }
.contexts img { outline: 3px solid var(--accent); outline-offset: 2px; }
figcaption { margin-top: .45rem; font-size: .88rem; line-height: 1.35; }
figcaption small { display: block; }
.swatch { display: inline-block; width: .75em; height: .75em; border-radius: 3px; margin-right: .35em; }
body:not(.depth) .distance, body.depth .colour { display: none; }
button { font: 400 .95rem system-ui, sans-serif; margin-left: .6rem; vertical-align: middle; color: var(--ink);
  background: var(--card); border: 1px solid var(--line); border-radius: 999px; padding: .35rem 1rem; cursor: pointer; }
button:hover { border-color: var(--accent); }
.bars { display: grid; grid-template-columns: max-content 1fr; gap: .35rem .9rem; max-width: 40rem;
  align-items: center; margin: 1rem 0; }
.bar { position: relative; height: 1.5rem; background: var(--paper); border: 1px solid var(--line); border-radius: 6px;
  overflow: hidden; }
.bar i { position: absolute; inset: 0 auto 0 0; opacity: .75; }
.bar u { position: absolute; top: 0; bottom: 0; width: 3px; margin-left: -1.5px; background: var(--ink); }
.bar span { position: absolute; right: .5rem; font-size: .85rem; line-height: 1.4rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .35rem .9rem .35rem 0; border-bottom: 1px solid var(--line); white-space: nowrap; }
th.text, td.text { text-align: left; white-space: normal; }
th { font-weight: 600; } th:first-child, td:first-child { text-align: left; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .8rem 1rem; overflow-x: auto;
  font-size: .88rem; }
.ranks { vertical-align: middle; fill: var(--accent); } .ranks line { stroke: var(--ink); stroke-dasharray: 3 2; }
.curve { width: 100%; max-width: 46rem; height: auto; display: block; }
.curve text { fill: var(--soft); font-size: 12px; } .curve line { stroke: var(--line); }
.curve polyline { fill: none; stroke: var(--accent); stroke-width: 2; stroke-linejoin: round; }
dl { max-width: 46rem; } dt { font-weight: 600; margin-top: .6rem; } dd { margin: 0; }
@media (max-width: 620px) { .turning { grid-template-columns: 1fr; } .turning .contexts { max-width: 13rem; }
  .tiles, .tiles.wide { grid-template-columns: repeat(2, 1fr); } .scene { padding: .9rem; } }
"""

# All videos show the same moment of the camera path, so that one sees where samples differ.
SYNCHRONISED_VIDEOS = """
const videos = [...document.querySelectorAll('video')];
const restart = () => videos.forEach(v => { v.currentTime = 0; v.play().catch(() => {}); });
const align = () => videos.forEach(v => {
  if (Math.abs(v.currentTime - videos[0].currentTime) > 0.1) v.currentTime = videos[0].currentTime;
});
const ready = v => new Promise(done => v.readyState > 2 ? done() : v.addEventListener('canplay', done, {once: true}));
Promise.all(videos.map(ready)).then(() => { restart(); setInterval(align, 4000); });
"""

# The button shows the videos' depth instead of their colours.
SCRIPT = f"""{SYNCHRONISED_VIDEOS}
const button = document.getElementById('depth-button');
button.addEventListener('click', () => {{
  button.textContent = document.body.classList.toggle('depth') ? 'Show colours' : 'Show depth';
  restart();
}});
"""
