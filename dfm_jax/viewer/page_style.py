"""How the buttons of a 3D page look, and the scripts of the page."""

CSS = """
#root { height: calc(100% - 3rem) !important; transform: translate(0); overflow: hidden; }
#dfm-bar { position: fixed; left: 0; right: 0; bottom: 0; height: 3rem; z-index: 20; display: flex; gap: 1rem;
  align-items: center; padding: 0 .75rem; background: #14161b; color: #ececf0; font: 14px/1.3 system-ui, sans-serif;
  white-space: nowrap; overflow-x: auto; }
#dfm-bar .group { display: inline-flex; gap: .3rem; align-items: center; }
#dfm-bar button { font: inherit; color: inherit; background: #2b2f38; border: 1px solid #474c58; border-radius: 7px;
  padding: .25rem .65rem; cursor: pointer; }
#dfm-bar button:hover { border-color: #7fabff; }
#dfm-bar button[aria-pressed="true"] { background: #2f6fde; border-color: #7fabff; }
#dfm-hint { color: #a0a4ae; margin-left: auto; }
@media (max-width: 1100px) { #dfm-hint { display: none; } }
@media (max-width: 760px) { #root { height: calc(100% - 5.5rem) !important; }
  #dfm-bar { height: 5.5rem; flex-wrap: wrap; gap: 0 1rem; align-content: center; row-gap: .3rem; } }
"""

# The client sorts gaussians in a worker, a module that it makes a blob of. Chromium refuses those to pages that are
# opened from a disk: without this script, which goes before the client's, gaussians keep their first order.
WORKERS = """
if (location.protocol === 'file:')
  window.Worker = new Proxy(window.Worker, {construct(Worker, [url, options]) {
    if (String(url).startsWith('blob:')) {
      const request = new XMLHttpRequest();
      request.open('GET', url, false);
      request.send();
      url = 'data:text/javascript;charset=utf-8,' + encodeURIComponent(request.responseText);
    }
    return new Worker(url, options);
  }});
"""

SCRIPT = """
(() => {
  const bar = document.getElementById('dfm-bar');
  const state = {sample: 1, kind: 'colours', playing: null, cameras: true};
  const send = (...messages) => {
    const client = window.__viserMutable;
    client.messageQueue.push(...messages);
    client.requestRender();
  };
  const visible = (name, visible) => ({type: 'SetSceneNodeVisibilityMessage', name, visible, owner: ''});
  const view = camera => send(
    {type: 'SetCameraFovMessage', fov: camera.fov, initial: false},
    {type: 'SetCameraUpDirectionMessage', position: camera.up, initial: false},
    {type: 'SetCameraPositionMessage', position: camera.position, initial: false},
    {type: 'SetCameraLookAtMessage', look_at: camera.look_at, initial: false});
  const pressed = () => bar.querySelectorAll('[data-sample], [data-kind]').forEach(button => {
    const own = button.dataset.sample ? +button.dataset.sample === state.sample : button.dataset.kind === state.kind;
    button.setAttribute('aria-pressed', own);
  });
  const show = () => {
    const messages = [];
    for (let i = 1; i <= DFM.samples; i++)
      for (const kind of ['colours', 'uncertainty'])
        messages.push(visible(`/sample ${i}/${kind}`, i === state.sample && kind === state.kind));
    send(...messages);
    pressed();
  };
  const showCameras = shown => {
    state.cameras = shown;
    cameras.setAttribute('aria-pressed', shown);
    send(visible('/photograph', shown), visible('/target camera', shown));
  };
  const stop = () => {
    clearInterval(state.playing);
    state.playing = null;
    play.textContent = 'Play';
  };
  const play = document.getElementById('dfm-play');
  const cameras = document.getElementById('dfm-cameras');
  play.addEventListener('click', () => {
    if (state.playing !== null) return stop();
    let frame = 0;
    play.textContent = 'Stop';
    showCameras(false);  // the path goes through them
    state.playing = setInterval(() => view(DFM.path[frame++ % DFM.path.length]), DFM.milliseconds);
  });
  document.getElementById('dfm-photograph').addEventListener('click', () => {
    stop();
    showCameras(false);
    view(DFM.photograph);
  });
  cameras.addEventListener('click', () => showCameras(!state.cameras));
  bar.addEventListener('click', event => {
    const {sample, kind} = event.target.dataset;
    if (sample) state.sample = +sample;
    if (kind) state.kind = kind;
    if (sample || kind) show();
  });
  addEventListener('pointerdown', event => { if (event.target.tagName === 'CANVAS') stop(); }, true);
  const started = setInterval(() => {  // once the client has drawn what the page holds
    const nodes = window.__viserSceneTree?.getState();
    if (!window.__viserMutable?.cameraControl || !nodes?.['/photograph']) return;
    clearInterval(started);
    view(DFM.start);
    pressed();
    document.body.dataset.ready = 'true';
  }, 50);
})();
"""
