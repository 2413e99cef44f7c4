"""How the page of `inspect` looks, and its script. Nothing is fetched from anywhere."""

CSS = """
:root { color-scheme: light dark; --paper: #fbfbf9; --ink: #22242a; --soft: #666a73; --line: #dedfda; --card: #fff;
  --accent: #2f6fde; --good: #1f7a45; --unsure: #95650a; --bad: #b3261e; --space: #f1f1ed; }
@media (prefers-color-scheme: dark) { :root { --paper: #15161a; --ink: #ececf0; --soft: #a0a4ae; --line: #30323a;
  --card: #1d1f25; --accent: #7fabff; --good: #6fd39a; --unsure: #e6b450; --bad: #ff8a80; --space: #121317; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: clamp(1.7rem, 4.5vw, 2.5rem); line-height: 1.15; margin: 0 0 .3rem; letter-spacing: -.02em; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .6rem; letter-spacing: -.01em; overflow-wrap: anywhere; }
h3 { font-size: 1rem; margin: 1.3rem 0 .5rem; }
p { max-width: 46rem; margin: .4rem 0 .8rem; }
.soft { color: var(--soft); } h2 .soft, h3 .soft { font-weight: 400; font-size: .95rem; margin-left: .4rem; }
a { color: var(--accent); } summary { cursor: pointer; margin-top: 1rem; }
.pill { font: 600 .82rem system-ui, sans-serif; border: 1px solid; border-radius: 999px; padding: .15rem .7rem;
  white-space: nowrap; vertical-align: middle; }
.good { color: var(--good); } .unsure { color: var(--unsure); } .bad { color: var(--bad); }
.scene { background: var(--card); border: 1px solid var(--line); border-radius: 16px; padding: 1rem 1.25rem 1.4rem;
  margin: 1.5rem 0; }
.scene > h2 { margin-top: 0; }
.warnings { margin: 0 0 1rem; padding: .6rem 1rem .6rem 2rem; border-left: 4px solid var(--bad);
  background: var(--paper); }
.facts { display: flex; flex-wrap: wrap; gap: .6rem; margin: .8rem 0 1rem; padding: 0; list-style: none; }
.facts li { border: 1px solid var(--line); border-radius: 12px; padding: .5rem .9rem; flex: 1 1 10rem;
  font-size: .85rem; color: var(--soft); }
.facts b { display: block; font-size: 1.2rem; line-height: 1.3; color: var(--ink); }
.space { display: grid; grid-template-columns: 1fr 15rem; gap: 1rem; align-items: start; }
.view { position: relative; }
canvas { display: block; width: 100%; height: 26rem; background: var(--space); border-radius: 10px; cursor: grab;
  touch-action: none; }
.view small { position: absolute; left: .8rem; bottom: .5rem; color: var(--soft); pointer-events: none; }
figure { margin: 0; } figure img { display: block; width: 100%; border-radius: 8px; background: #000; }
figcaption { margin-top: .35rem; font-size: .84rem; line-height: 1.35; color: var(--soft); overflow-wrap: anywhere; }
.thumbnails { display: flex; gap: 4px; overflow-x: auto; padding: .8rem 0 .4rem; }
.thumbnails img { width: 64px; height: 64px; border-radius: 4px; cursor: pointer; flex: none;
  border-bottom: 4px solid; }
.thumbnails img.on { outline: 3px solid var(--ink); outline-offset: -3px; }
.panel { display: grid; grid-template-columns: repeat(4, 1fr); gap: .8rem; margin-bottom: 1rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .35rem 1.4rem .35rem 0; border-bottom: 1px solid var(--line); }
pre { background: var(--paper); border: 1px solid var(--line); border-radius: 8px; padding: .8rem 1rem;
  font-size: .85rem; overflow-x: auto; }
@media (max-width: 700px) { .space { grid-template-columns: 1fr; } .chosen { max-width: 15rem; }
  .panel { grid-template-columns: repeat(2, 1fr); } }
"""

# The 3D view: everything is about one unit wide and lies around the origin. `basis` turns it so that the mean of the
# cameras' upper sides is up; then it is turned by yaw and pitch and seen in perspective.
SCRIPT = """
const scenes = JSON.parse(document.getElementById('scenes').textContent);
const add = (a, b, s) => a.map((x, i) => x + s * b[i]);
const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
const unit = a => a.map(x => x / Math.hypot(...a));
const hue = (i, n) => `hsl(${n > 1 ? 250 - 250 * i / (n - 1) : 250} 85% 55%)`;

function show(section, scene) {
  const canvas = section.querySelector('canvas'), context = canvas.getContext('2d');
  const frames = scene.frames, up = scene.up;
  const right = unit(cross(up, Math.abs(up[0]) < 0.8 ? [1, 0, 0] : [0, 0, 1])), back = cross(right, up);
  const view = {yaw: 0.6, pitch: 0.45, distance: 1.25, chosen: 0};
  // Start behind the cameras.
  const mean = frames.reduce((sum, frame) => add(sum, frame.axis, 1), [0, 0, 0]);
  if (Math.hypot(...mean) > 0.3 * frames.length) view.yaw = Math.atan2(dot(mean, right), -dot(mean, back)) + 0.5;
  const gap = (a, b) => a === b ? Infinity : Math.hypot(...add(a.position, b.position, -1));
  const gaps = frames.map(a => Math.min(...frames.map(b => gap(a, b)))).sort((a, b) => a - b);
  const size = Math.max(0.015, Math.min(0.06, gaps[frames.length >> 1])), thumbnails = [];
  let width = 0, height = 0;

  const project = p => {
    const x = dot(p, right), y = dot(p, up), z = dot(p, back);
    const cy = Math.cos(view.yaw), sy = Math.sin(view.yaw), cp = Math.cos(view.pitch), sp = Math.sin(view.pitch);
    const x1 = cy * x + sy * z, z1 = cy * z - sy * x, y1 = cp * y - sp * z1, z2 = sp * y + cp * z1;
    const depth = view.distance - z2;
    return depth < 0.02 ? null : [width / 2 + height * x1 / depth, height / 2 - height * y1 / depth, depth];
  };
  const path = (points, close) => {
    const seen = points.map(project);
    if (seen.includes(null)) return;
    context.beginPath();
    seen.forEach((p, i) => i ? context.lineTo(p[0], p[1]) : context.moveTo(p[0], p[1]));
    if (close) context.closePath();
    context.stroke();
  };
  const drawCamera = (frame, i) => {
    const chosen = i === view.chosen, s = size * (chosen ? 1.25 : 1);
    const corners = frame.rays.map(ray => add(frame.position, ray, s));
    context.strokeStyle = context.fillStyle = hue(i, frames.length);
    context.lineWidth = chosen ? 3 : 1.3;
    corners.slice(0, 4).forEach(corner => path([frame.position, corner]));
    path(corners.slice(0, 4), true);
    const tip = [corners[0], corners[1], corners[4]].map(project);
    if (!tip.includes(null)) {
      context.beginPath(); tip.forEach((p, j) => j ? context.lineTo(p[0], p[1]) : context.moveTo(p[0], p[1]));
      context.fill();
    }
    if (chosen && scene.bounds) {
      context.lineWidth = 1; context.setLineDash([4, 4]);
      path([frame.position, add(frame.position, frame.axis, scene.bounds[1])]);
      context.setLineDash([]);
      for (const distance of scene.bounds)
        path(frame.rays.slice(0, 4).map(ray => add(frame.position, unit(ray), distance)), true);
    }
  };
  function draw() {
    const scale = window.devicePixelRatio || 1;
    width = canvas.clientWidth; height = canvas.clientHeight;
    canvas.width = width * scale; canvas.height = height * scale;
    context.setTransform(scale, 0, 0, scale, 0, 0);
    for (const [x, y, z, r, g, b] of scene.points) {
      const p = project([x, y, z]);
      if (!p) continue;
      context.fillStyle = `rgb(${r} ${g} ${b})`;
      context.fillRect(p[0] - 1.5, p[1] - 1.5, 3, 3);
    }
    frames.forEach(drawCamera);
  }
  function choose(i) {
    const frame = frames[i];
    thumbnails[view.chosen].classList.remove('on');
    view.chosen = i;
    thumbnails[i].classList.add('on');
    section.querySelector('.chosen img').src = frame.picture;
    section.querySelector('.chosen figcaption').textContent = `${frame.label}: ${frame.name}`;
    draw();
  }

  frames.forEach((frame, i) => {
    const image = new Image();
    image.src = frame.picture; image.title = frame.name; image.style.borderColor = hue(i, frames.length);
    image.addEventListener('click', () => choose(i));
    thumbnails.push(image);
  });
  section.querySelector('.thumbnails').append(...thumbnails);

  let held = null, moved = 0;
  canvas.addEventListener('pointerdown', e => {
    held = [e.clientX, e.clientY]; moved = 0;
    canvas.setPointerCapture(e.pointerId);
  });
  canvas.addEventListener('pointermove', e => {
    if (!held) return;
    const [dx, dy] = [e.clientX - held[0], e.clientY - held[1]];
    held = [e.clientX, e.clientY]; moved += Math.abs(dx) + Math.abs(dy);
    view.yaw += dx / 150;
    view.pitch = Math.max(-1.55, Math.min(1.55, view.pitch + dy / 150));
    draw();
  });
  canvas.addEventListener('pointerup', e => {
    held = null;
    if (moved > 5) return;
    const box = canvas.getBoundingClientRect(), x = e.clientX - box.left, y = e.clientY - box.top;
    let best = 20, found = -1;
    frames.forEach((frame, i) => {
      for (const point of [frame.position, add(frame.position, frame.axis, size)]) {
        const p = project(point), distance = p ? Math.hypot(p[0] - x, p[1] - y) : Infinity;
        if (distance < best) [best, found] = [distance, i];
      }
    });
    if (found >= 0) choose(found);
  });
  canvas.addEventListener('wheel', e => {
    e.preventDefault();
    view.distance = Math.max(0.1, Math.min(8, view.distance * Math.exp(e.deltaY / 800)));
    draw();
  }, {passive: false});
  window.addEventListener('resize', draw);
  choose(0);
}

document.querySelectorAll('[data-scene]').forEach(section => show(section, scenes[section.dataset.scene]));
"""
