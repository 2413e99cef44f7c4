"""viser's server, for nobody but the viewer's own page: other pages, and messages that the viewer has no use for, are
refused before anything is done about them.

viser trusts its browsers: a message may set any attribute of a control, and another one opens a tunnel to the internet.
"""

import contextlib
import io
import logging
import socket
import warnings
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import viser
from viser import _messages as messages

from dfm_jax.errors import UserError
from dfm_jax.viewer import limits

logger = logging.getLogger(__name__)

TRIED_PORTS = 20  # after the one that was asked for
LONGEST_TEXT = 200  # that a browser may enter
LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
# Of all that viser's browsers can send. Buttons and all other controls are `GuiUpdateMessage`.
TAKEN = (messages.ViewerCameraMessage, messages.GuiUpdateMessage, messages.LocalStorageGetItemResponseMessage)


def free_port(host: str, port: int) -> int:
    """The first port from `port` on that can be listened to.

    Raises:
      UserError: there is none, or `host` is no address of this machine.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
            0
        ]
    except (OSError, UnicodeError) as error:
        raise UserError(f"--host={host} is no address: {error}") from error
    last = min(port + TRIED_PORTS, 65535)
    for tried in range(port, last + 1):
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address[0], tried, *address[2:]))
                return tried
            except OSError as error:
                reason = error
    raise UserError(f"none of the ports {port} to {last} of {host} can be listened to ({reason}): give another --port")


def start_server(host: str, port: int, title: str) -> viser.ViserServer:
    """A server that answers the viewer's own page only.

    Args:
      port: a free one.
    """
    warnings.filterwarnings("ignore", "Queued a .* on a closed connection", UserWarning)  # browsers come and go
    logging.getLogger("websockets.server").setLevel(logging.CRITICAL)  # of messages that are none, with a traceback
    with quiet():
        server = viser.ViserServer(host=host, port=port, label=title, verbose=False)
    server.request_share_url = lambda verbose=True: None  # what leaves this machine is for its user to say
    sockets = server._websock_server
    _let_through(sockets, acceptable)

    async def admit(connection: Any) -> None:
        opened = sockets._live_connections[connection.client_id]
        if (
            is_own_page(opened.request.headers, host in LOCAL_NAMES)
            and len(sockets._live_connections) <= limits.MAX_BROWSERS
        ):
            _let_through(connection, acceptable)
            return
        logger.warning("refused a connection from another site, or of more than %d browsers", limits.MAX_BROWSERS)
        _let_through(connection, lambda message: False)
        await opened.close(1008, "refused")

    sockets.on_client_connect(admit)
    return server


def stop_server(server: viser.ViserServer) -> None:
    with quiet():
        server.stop()


def acceptable(message: Any) -> bool:
    """Whether a message is one that the viewer's page sends: what it says is checked by those who use it."""
    if not isinstance(message, TAKEN):
        return False
    if not isinstance(message, messages.GuiUpdateMessage):
        return True
    value = message.updates.get("value")
    short = not isinstance(value, str | bytes | list | tuple | dict) or len(value) <= LONGEST_TEXT
    return message.updates.keys() == {"value"} and short


def is_own_page(headers: Any, local: bool) -> bool:
    """Whether a connection was opened by a page that this server has served: not by another site that the user looks
    at, which may open connections to any address.

    Args:
      headers: of the request.
      local: the server listens to this machine alone, so that it is reached by a local name.
    """
    host, origin = headers.get("Host", ""), headers.get("Origin")
    if local and urlsplit(f"//{host}").hostname not in LOCAL_NAMES:
        return False
    return origin is None or urlsplit(origin).netloc == host


def _let_through(handler: Any, allowed: Callable[[Any], bool]) -> None:
    """Only such messages reach one of viser's handlers from now on."""
    handle = handler._handle_incoming_message

    async def handle_allowed(client_id: int, message: Any) -> None:
        if allowed(message):
            await handle(client_id, message)

    handler._handle_incoming_message = handle_allowed


@contextlib.contextmanager
def quiet() -> Any:
    """Within it, viser's own words do not appear."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
