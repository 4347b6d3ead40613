"""The rules as data: what an orchestrator must not do, why, what to do instead, and by which names it is recognised."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that does not survive a replay.

    Attributes:
        code: stable; what `# noqa` and `--select` name.
        problem: completes a sentence that begins with the code at fault.
        remedy: what to write instead.
        names: dotted names, of functions or of all that is below them, that break the rule wherever they are used.
    """

    code: str
    problem: str
    remedy: str
    names: str = ""


UNREADABLE = Rule("DUR000", "cannot be read", "Mend the file; nothing in it was checked.")
CLOCK = Rule(
    "DUR001",
    "reads the clock, which says something else at the next replay",
    "Use ctx.now().",
    """
    time.time time.time_ns time.monotonic time.monotonic_ns time.perf_counter time.perf_counter_ns time.process_time
    time.process_time_ns time.thread_time time.thread_time_ns time.clock_gettime time.clock_gettime_ns time.localtime
    time.gmtime time.ctime time.asctime time.strftime datetime.datetime.now datetime.datetime.utcnow
    datetime.datetime.today datetime.date.today arrow.now arrow.utcnow pendulum.now pendulum.today
    django.utils.timezone.now
    """,
)
CHANCE = Rule(
    "DUR002",
    "is random, and another value at the next replay",
    "Use ctx.random or ctx.uuid4().",
    """
    random secrets uuid.uuid1 uuid.uuid4 uuid.uuid6 uuid.uuid7 uuid.uuid8 uuid.getnode os.urandom os.getrandom
    numpy.random
    """,
)
ENVIRONMENT = Rule(
    "DUR003",
    "depends on the process and the machine, and replays run elsewhere",
    "Read it in an activity, or pass it as input.",
    """
    os.environ os.environb os.getenv os.getenvb os.getpid os.getppid os.getcwd os.getcwdb os.getlogin os.getuid
    os.cpu_count os.uname sys.argv platform getpass locale
    """,
)
FILES = Rule(
    "DUR004",
    "touches files, which are not in the history",
    "Do it in an activity.",
    """
    builtins.open builtins.input builtins.breakpoint io.open io.open_code os.open os.read os.write os.listdir
    os.scandir os.walk os.stat os.lstat os.remove os.unlink os.rename os.replace os.mkdir os.makedirs os.rmdir
    os.removedirs os.chmod os.chown os.link os.symlink os.readlink os.truncate os.utime os.path.exists os.path.isfile
    os.path.isdir os.path.islink os.path.getsize os.path.getmtime os.path.realpath os.path.abspath os.path.expanduser
    pathlib.Path.chmod pathlib.Path.cwd pathlib.Path.exists pathlib.Path.expanduser pathlib.Path.glob
    pathlib.Path.home pathlib.Path.is_dir pathlib.Path.is_file pathlib.Path.is_symlink pathlib.Path.iterdir
    pathlib.Path.mkdir pathlib.Path.open pathlib.Path.read_bytes pathlib.Path.read_text pathlib.Path.rename
    pathlib.Path.replace pathlib.Path.resolve pathlib.Path.rglob pathlib.Path.rmdir pathlib.Path.stat
    pathlib.Path.symlink_to pathlib.Path.touch pathlib.Path.unlink pathlib.Path.walk pathlib.Path.write_bytes
    pathlib.Path.write_text bz2.open gzip.open lzma.open dbm fileinput glob mmap shelve shutil tarfile.open tempfile
    aiofiles
    """,
)
NETWORK = Rule(
    "DUR005",
    "talks to something outside, whose answer is not in the history",
    "Do it in an activity; where the answer comes later, in a callback activity.",
    """
    socket ssl select selectors socketserver ftplib http.client http.server imaplib poplib smtplib urllib.request
    xmlrpc webbrowser asyncio.open_connection asyncio.open_unix_connection asyncio.start_server
    asyncio.start_unix_server aioboto3 aiobotocore aiohttp asyncpg boto3 botocore elasticsearch grpc httplib2 httpx
    kafka openai paramiko pika psycopg psycopg2 pymongo pymysql redis requests sqlalchemy.create_engine
    sqlalchemy.ext.asyncio.create_async_engine sqlalchemy.orm.Session sqlalchemy.orm.sessionmaker sqlite3 urllib3
    websockets
    """,
)
PROCESSES = Rule(
    "DUR006",
    "starts or signals a process, again at every replay",
    "Do it in an activity.",
    """
    subprocess pty signal os.system os.popen os.fork os.forkpty os.kill os.killpg os.abort os._exit os.execl os.execle
    os.execlp os.execv os.execve os.execvp os.execvpe os.spawnl os.spawnle os.spawnlp os.spawnv os.spawnve os.spawnvp
    os.posix_spawn os.startfile asyncio.create_subprocess_exec asyncio.create_subprocess_shell
    """,
)
THREADS = Rule(
    "DUR007",
    "leaves the loop for a thread or a process, whose progress cannot be replayed",
    "Put the work into an activity and await it; for concurrency use asyncio.gather or asyncio.TaskGroup.",
    """
    threading _thread concurrent.futures multiprocessing queue asyncio.to_thread asyncio.run_coroutine_threadsafe
    anyio.to_thread anyio.from_thread
    """,
)
SLEEP = Rule(
    "DUR008",
    "stops the whole runtime, and again at every replay",
    "Use `await asyncio.sleep(...)`, a durable timer.",
    "time.sleep",
)
LOOP = Rule(
    "DUR009",
    "runs an event loop of its own inside the orchestrator's",
    "Use `await`.",
    "asyncio.run asyncio.Runner asyncio.new_event_loop asyncio.set_event_loop anyio.run trio.run uvloop",
)
SET_ORDER = Rule(
    "DUR010",
    "takes the elements of a set in an order that changes from process to process",
    "Use sorted(...), a list, or dict.fromkeys(...).",
)
AS_COMPLETED = Rule(
    "DUR011",
    "keeps bare coroutines in a set, whose order changes from replay to replay",
    "Give it tasks: `asyncio.as_completed([asyncio.create_task(c) for c in coroutines])`.",
)
GLOBALS = Rule(
    "DUR012",
    "changes state of the module, which other executions share and a replay changes again",
    "Keep state in local variables; they are durable.",
)
FORGOTTEN = Rule(
    "DUR013",
    "is never awaited, so nothing happens",
    "Write `await` in front of it, or make it a task with asyncio.create_task(...).",
)
SWALLOWED = Rule(
    "DUR014",
    "swallows a cancellation that arrives at the `await` inside",
    "Catch Exception, or end the handler with `raise`.",
)
IDENTITY = Rule(
    "DUR015",
    "depends on where an object lies or on the hash seed, both different at the next replay",
    "Compare by value or by a key of your own.",
    "builtins.id builtins.hash",
)
OUTPUT = Rule(
    "DUR016",
    "repeats its output at every replay",
    "Use ctx.logger, which is silent while history is replayed.",
    """
    builtins.print logging.debug logging.info logging.warning logging.error logging.critical logging.exception
    logging.log logging.getLogger() sys.stdout sys.stderr warnings.warn structlog loguru.logger
    """,
)
BYPASS = Rule(
    "DUR017",
    "runs the activity's function inside the orchestrator, unrecorded and again at every replay",
    "Call the activity itself, and await it.",
)
CLIENT = Rule(
    "DUR018",
    "acts without the history knowing, and again at every replay",
    "Await the other orchestrator, as a child, or ctx.signal(...); do anything else in an activity.",
    "durably.Client durably.client.Client durably.embedded durably.schedules.Schedules",
)

RULES = (
    UNREADABLE,
    CLOCK,
    CHANCE,
    ENVIRONMENT,
    FILES,
    NETWORK,
    PROCESSES,
    THREADS,
    SLEEP,
    LOOP,
    SET_ORDER,
    AS_COMPLETED,
    GLOBALS,
    FORGOTTEN,
    SWALLOWED,
    IDENTITY,
    OUTPUT,
    BYPASS,
    CLIENT,
)

# Whatever the receiver is: only loops and executors have methods of these names.
METHODS = {
    "run_in_executor": THREADS,
    "call_soon_threadsafe": THREADS,
    "run_until_complete": LOOP,
    "run_forever": LOOP,
}

# How many arguments make a call of these a pure function: with fewer they read the clock or draw a seed.
PURE_WITH = {
    "random.Random": (CHANCE, 1),
    "time.asctime": (CLOCK, 1),
    "time.gmtime": (CLOCK, 1),
    "time.strftime": (CLOCK, 2),
}

# What makes an awaitable. An `async def` and an activity of the project are known without being listed.
AWAITABLES = frozenset(
    {"asyncio.sleep", "asyncio.wait", "asyncio.wait_for"}
    | {f"durably.Context.{name}" for name in ("call", "continue_as_new", "map", "race", "receive", "signal")}
)

_RULE_OF = {name: rule for rule in RULES for name in rule.names.split()}
_HARMLESS = ("Error", "Exception", "Warning")  # an exception's class is no I/O
_HARMLESS_NAMES = frozenset({"random.Random"})  # one that was made from ctx.random; making one is PURE_WITH's


def rule_of(dotted: str) -> Rule | None:
    """The rule that a use of this name breaks, if any: by the longest part of it that is listed."""
    parts = dotted.split(".")
    if parts[-1].endswith(_HARMLESS) or parts[-1].isupper():
        return None
    for length in range(len(parts), 0, -1):
        name = ".".join(parts[:length])
        if name in _HARMLESS_NAMES:
            return None
        if name in _RULE_OF:
            return _RULE_OF[name]
    return None


def listed_below(module: str) -> list[str]:
    """Listed names that `from module import *` brings."""
    return [name.rpartition(".")[2] for name in _RULE_OF if name.rpartition(".")[0] == module]
