"""Ctrl-C and its like, heard at once, and answered by one line.

Python runs its handlers in the main thread, and only between two of its instructions: not while that thread is in the
compiler or waits for a device. The C level writes each signal's number to a pipe; a thread that reads it hears it then.

Nothing heavy is imported here: a command can be interrupted while it imports jax.
"""

import atexit
import contextlib
import os
import signal
import sys
import threading
import types
from collections.abc import Callable, Iterator, Sequence

EXIT_INTERRUPTED = 130
GRACE_SECONDS = 3.0  # that the main thread has, to tidy up after Ctrl-C

_staying: list[str] = []  # what is told of results after Ctrl-C, the innermost last


class Hearing:
    """While it is entered, `hear` is called with the number of each of these signals, in a thread of its own. Those
    that are ignored when it is entered (SIGHUP under nohup) stay so. To be entered in the main thread."""

    def __init__(self, hear: Callable[[int], None], signals: Sequence[int], handler: Callable | None = None):
        """
        Args:
          handler: Python's own handler, in the main thread; None: it does nothing.
        """
        self._hear, self._signals, self._handler = hear, signals, handler or _do_nothing

    def __enter__(self) -> "Hearing":
        heard = [number for number in self._signals if signal.getsignal(number) not in (signal.SIG_IGN, None)]
        reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        self._pipe_before = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        self._handlers_before = {number: signal.signal(number, self._handler) for number in heard}
        self._thread = threading.Thread(target=self._listen, args=(reading, heard), name="signals", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._handlers_before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._pipe_before)
        os.close(self._writing)
        self._thread.join()

    def _listen(self, reading: int, heard: Sequence[int]) -> None:
        while numbers := os.read(reading, 64):
            for number in numbers:
                if number in heard:
                    self._hear(number)
        os.close(reading)


def _do_nothing(*_: object) -> None:
    pass


def end_commands_in_one_line() -> None:
    """From now on Ctrl-C ends this program with one line and `EXIT_INTERRUPTED`, without a traceback: by a
    KeyboardInterrupt, so that what is unfinished can be removed; where the main thread takes longer than
    `GRACE_SECONDS` (it may be in the compiler), or at a second Ctrl-C, at once."""
    told, telling, pressed = [], threading.Lock(), threading.Event()

    def tell(staying: Sequence[object]) -> None:
        with telling:  # the main thread may come to it as well
            if not told:
                told.append(True)
                print_line(": ".join(map(str, ("interrupted", *staying))))

    def end() -> None:
        tell(_staying[-1:])
        leave()

    def hear(_: int) -> None:
        if pressed.is_set():
            end()
        pressed.set()
        timer = threading.Timer(GRACE_SECONDS, end)
        timer.daemon = True
        timer.start()

    def answer(kind: type[BaseException], error: BaseException, trace: types.TracebackType | None) -> None:
        if not issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, trace)
            return
        tell(error.args)
        with contextlib.suppress(BaseException):
            atexit._run_exitfuncs()  # what libraries have left in the system; threads are not waited for
        leave()

    sys.excepthook = answer
    Hearing(hear, [signal.SIGINT], signal.default_int_handler).__enter__()  # for the rest of the program


def print_line(message: str) -> None:
    """One line on standard error, behind '^C' and a progress bar."""
    print(f"\n{message}" if sys.stderr.isatty() else message, file=sys.stderr, flush=True)


def leave(message: str = "", code: int = EXIT_INTERRUPTED) -> None:
    """Ends the program, after a line on standard error if there is a message, whatever its threads do."""
    if message:
        print_line(message)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


@contextlib.contextmanager
def staying(text: str) -> Iterator[None]:
    """Within it, this is told after Ctrl-C: what becomes of results."""
    _staying.append(text)
    try:
        yield
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(*(error.args or (text,))) from None
    finally:
        _staying.pop()


@contextlib.contextmanager
def kept_from_children() -> Iterator[None]:
    """Processes that are started within it hear neither Ctrl-C nor the end of the terminal, which the system tells all
    processes that were started there: this one does, and ends them."""
    signals = {signal.SIGINT, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # which they inherit
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
