"""What is done when a browser presses or changes something: a mistake is told there, and nothing else goes wrong."""

import logging
from collections.abc import Callable
from typing import Any

from dfm_jax.errors import UserError

logger = logging.getLogger(__name__)

SECONDS = 8.0  # that a notification stays


def tell(client: Any, message: str, well: bool = True) -> None:
    """Shows a notification to one browser."""
    client.add_notification(
        "Done" if well else "That cannot be done",
        message,
        color="green" if well else "red",
        auto_close_seconds=SECONDS,
    )


def on(handle: Any, do: Callable[[Any], None]) -> None:
    """Calls `do` with the browser's handle when a button is pressed, or a control changed by it.

    What the viewer itself sets does not count.
    """

    def answer(event: Any) -> None:
        if event.client is None:
            return
        try:
            do(event.client)
        except UserError as error:
            tell(event.client, str(error), well=False)
        except Exception as error:  # whatever a browser sends, the viewer goes on
            logger.error("%s: %s", type(error).__name__, error, exc_info=error)
            tell(event.client, f"{type(error).__name__}: {error}", well=False)

    handle.on_update(answer) if not hasattr(handle, "on_click") else handle.on_click(answer)
