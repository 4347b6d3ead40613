"""What a loop offers and an orchestrator cannot have: threads, sockets, processes. Each refusal names a way out."""

from __future__ import annotations

from asyncio import tasks as asyncio_tasks
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn, TypeVar

from durably.core.errors import NotDurableError
from durably.core.sites import frame_at

_Loop = TypeVar("_Loop", bound=type)

_SOCKETS = "Sockets cannot be replayed. Do network I/O in an @activity; be called back through a callback activity."
_FILES = "File descriptors cannot be replayed. Do I/O in an @activity."
_THREADS = "Threads cannot be replayed. Put the work into an @activity and await it."
_PROCESSES = "Processes cannot be replayed. Start them in an @activity."
_SIGNALS = "Process signals cannot be replayed. Handle them outside the orchestrator."
_RUNNING = "The loop runs until it is idle, once for each event. Use `await`; return to end the execution."

_ALTERNATIVES: dict[str, tuple[str, ...]] = {
    _THREADS: ("run_in_executor", "call_soon_threadsafe", "set_default_executor", "shutdown_default_executor"),
    _SOCKETS: (
        *("create_connection", "create_server", "create_datagram_endpoint", "create_unix_connection"),
        *("create_unix_server", "connect_accepted_socket", "start_tls", "sendfile", "getaddrinfo", "getnameinfo"),
        *("sock_recv", "sock_recv_into", "sock_recvfrom", "sock_recvfrom_into", "sock_sendall", "sock_sendto"),
        *("sock_connect", "sock_accept", "sock_sendfile"),
    ),
    _FILES: (
        *("add_reader", "add_writer", "remove_reader", "remove_writer"),
        *("connect_read_pipe", "connect_write_pipe"),
    ),
    _PROCESSES: ("subprocess_shell", "subprocess_exec"),
    _SIGNALS: ("add_signal_handler", "remove_signal_handler"),
    _RUNNING: ("run_forever", "run_until_complete", "stop", "close", "shutdown_asyncgens"),
    "A failed background task fails the execution; await the task to handle its error.": ("set_exception_handler",),
    "Tasks of an orchestrator are numbered so that they replay; they have no other factory.": ("set_task_factory",),
    "The loop of an orchestrator has no debug mode.": ("set_debug",),
}


def refuse_the_rest(loop_type: _Loop) -> _Loop:
    """Class decorator: each method of a loop that cannot be durable raises, naming the alternative."""
    for alternative, names in _ALTERNATIVES.items():
        for name in names:
            setattr(loop_type, name, _refusal(name, alternative))
    return loop_type


def _refusal(name: str, alternative: str) -> Callable[..., NoReturn]:
    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise NotDurableError(f"loop.{name}() is not durable inside an orchestrator. {alternative}")

    refuse.__name__ = name
    return refuse


def _codes(*names: str) -> tuple[object, ...]:
    functions = (getattr(asyncio_tasks, name, None) for name in names)
    return tuple(function.__code__ for function in functions if function is not None)


ENSURE_FUTURE = _codes("ensure_future", "_ensure_future")
_TASKS_FILE = asyncio_tasks.as_completed.__code__.co_filename


def refuse_as_completed(coro: Coroutine[Any, Any, Any]) -> None:
    """Raise if `asyncio.as_completed` is about to wrap a bare coroutine. Called by `create_task`.

    Raises:
        NotDurableError: it is.
    """
    frame = frame_at(2)
    while frame.f_code.co_filename == _TASKS_FILE:
        if frame.f_code.co_name in ("as_completed", "__init__"):
            coro.close()
            raise NotDurableError(
                "asyncio.as_completed() keeps bare coroutines in a set, whose order changes from replay to replay. "
                "Give it tasks: `as_completed([asyncio.create_task(c) for c in coroutines])`."
            )
        if frame.f_back is None:
            return
        frame = frame.f_back
