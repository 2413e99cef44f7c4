"""Browsers that come back: a connection that drops, or a page that is loaded again, is a new browser to viser. One that
was here before finds its camera and its choices as they were."""

import secrets
import threading
from collections import OrderedDict
from typing import Any

KEY = "dfm_jax_viewer"  # of what a browser stores
WAIT = 30.0  # seconds for its answer: it comes once a page is drawn, which on a busy machine takes a while
MAX_KEPT = 32  # states of browsers that have left


class Returning:
    """Browsers are known again by a secret that each of them keeps."""

    def __init__(self):
        self._left: OrderedDict[str, list[Any]] = OrderedDict()  # states by secret; a browser may have several pages
        self._lock = threading.Lock()

    def secret(self, client: Any) -> str:
        """That of a browser, which is given one if it has none."""
        try:
            known = client.local_storage.get_item(KEY, timeout=WAIT)
        except (RuntimeError, TimeoutError):  # it stores nothing, or has gone
            return ""
        if not known or len(known) > 100:
            known = secrets.token_urlsafe(16)
            client.local_storage.set_item(KEY, known)
        return known

    def leave(self, secret: str, state: Any) -> None:
        with self._lock:
            self._left.setdefault(secret, []).append(state)
            self._left.move_to_end(secret)
            while sum(map(len, self._left.values())) > MAX_KEPT:
                oldest, states = next(iter(self._left.items()))
                states.pop(0)
                if not states:
                    del self._left[oldest]

    def come(self, secret: str) -> Any:
        """What the browser's page that left last had; None: it had none here."""
        with self._lock:
            states = self._left.get(secret)
            if not secret or not states:
                return None
            state = states.pop()
            if not states:
                del self._left[secret]
            return state
