"""Each rule, by small programs that break it and small programs that do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from durably.lint.rules import RULES, rule_of
from tests.unit.lint.programs import codes

BAD = {
    "DUR001": [
        ("from time import time as t", "t()"),
        ("import time", "time.monotonic_ns()"),
        ("import time", "clock = time.time\nclock()  # noqa: DUR002"),
        ("import datetime", "datetime.datetime.now(datetime.UTC)"),
        ("from datetime import datetime as d", "d.utcnow()"),
        ("from datetime import date", "date.today()"),
        ("import datetime as dt", "now = dt.datetime.now"),
        ("import time", "time.gmtime()"),
        ("import time", "time.strftime('%Y')"),
        ("", "import time\ntime.time()"),
        ("from time import *", "time()"),
        ("from datetime import datetime", "def later(at=datetime.now()): ..."),
    ],
    "DUR002": [
        ("import random", "random.choice([1, 2])"),
        ("from random import shuffle", "shuffle([])"),
        ("import random", "rng = random.Random()"),
        ("from random import SystemRandom", "SystemRandom().random()"),
        ("import uuid", "uuid.uuid4()"),
        ("from uuid import uuid1 as make", "make()"),
        ("import secrets", "secrets.token_hex()"),
        ("from os import urandom", "urandom(8)"),
        ("import numpy as np", "np.random.rand()"),
        ("from uuid import uuid4\nfrom functools import partial", "partial(uuid4)"),
    ],
    "DUR003": [
        ("import os", "os.environ['HOME']"),
        ("import os", "os.environ.get('HOME')"),
        ("from os import environ as e", "'HOME' in e"),
        ("from os import getenv", "getenv('HOME')"),
        ("import os", "os.getpid()"),
        ("import sys", "sys.argv[1]"),
        ("import platform", "platform.node()"),
    ],
    "DUR004": [
        ("", "open('x')"),
        ("from pathlib import Path", "Path('x').read_text()"),
        ("from pathlib import Path", "(Path('x') / 'y').exists()"),
        ("import pathlib", "path = pathlib.Path('x')\npath.write_text('')"),
        ("from pathlib import Path", "def read(path: Path | None): return path.stat()"),
        ("import os.path", "os.path.exists('x')"),
        ("import shutil", "shutil.rmtree('x')"),
        ("import tempfile", "tempfile.mkdtemp()"),
        ("import gzip", "gzip.open('x')"),
    ],
    "DUR005": [
        ("import requests", "requests.get('http://x')"),
        ("import httpx", "async with httpx.AsyncClient(): ..."),
        ("import boto3", "boto3.client('s3')"),
        ("from urllib.request import urlopen", "urlopen('http://x')"),
        ("import urllib.request as r", "r.urlopen('http://x')"),
        ("import urllib.request", "urllib.request.urlopen('http://x')"),
        ("import socket", "socket.create_connection(('x', 1))"),
        ("import sqlite3", "sqlite3.connect('x')"),
        ("", "await asyncio.open_connection('x', 1)"),
        ("import requests\nsession = requests.Session()", "session.get('http://x')"),
        ("import boto3\ns3 = boto3.client('s3')", "s3.get_object(Bucket='x', Key='y')"),
        ("import sqlite3\nusers = sqlite3.connect('x')", "users.execute('select 1')"),
    ],
    "DUR006": [
        ("import subprocess", "subprocess.run(['x'])"),
        ("import os", "os.system('x')"),
        ("", "await asyncio.create_subprocess_exec('x')"),
        ("import signal", "signal.alarm(1)"),
    ],
    "DUR007": [
        ("", "await asyncio.to_thread(len, '')"),
        ("import threading", "threading.Thread()"),
        ("from concurrent.futures import ThreadPoolExecutor", "ThreadPoolExecutor()"),
        ("", "await asyncio.get_running_loop().run_in_executor(None, len, '')"),
        ("", "loop = asyncio.get_running_loop()\nawait loop.run_in_executor(None, len, '')"),
        ("import multiprocessing as mp", "mp.Pool()"),
        ("from queue import Queue", "Queue()"),
    ],
    "DUR008": [
        ("import time", "time.sleep(1)"),
        ("from time import sleep", "sleep(1)"),
    ],
    "DUR009": [
        ("", "asyncio.run(work(1))"),
        ("", "asyncio.new_event_loop()"),
        ("", "asyncio.get_running_loop().run_until_complete(work(1))"),
    ],
    "DUR010": [
        ("", "for x in {1, 2}: ..."),
        ("", "for x in set(range(3)): ..."),
        ("", "for tag in tags: ..."),
        ("", "[x for x in tags]"),
        ("", "{x: 1 for x in tags}"),
        ("", "list(tags)"),
        ("", "await asyncio.gather(*(work(len(x)) for x in tags))"),
        ("", "await asyncio.gather(*{work(1), work(2)})"),
        ("", "next(iter(tags))"),
        ("", "','.join(tags)"),
        ("", "tags.pop()"),
        ("", "first, second = tags"),
        ("", "seen = {1}\nseen = seen | {2}\nfor x in seen: ..."),
        ("", "for x in {1: 2}.keys() & {2: 3}.keys(): ..."),
        ("", "for x in tags.union('b'): ..."),
        ("", "for x in await names(): ..."),
        ("", "found = await names()\nfor x in found: ..."),
        ("", "found: frozenset[str] = frozenset()\nfor x in found: ..."),
        ("", "dict.fromkeys(tags)"),
        ("", "f'{tags}'"),
        ("", "{await work(len(x)) for x in tags}"),
        ("class Order:\n    tags: set[str]", "def each(order: Order): return [x for x in order.tags]"),
    ],
    "DUR011": [
        ("", "for each in asyncio.as_completed([work(1), work(2)]): await each"),
        ("from asyncio import as_completed", "for each in as_completed(work(x) for x in [1]): await each"),
        ("", "for each in asyncio.as_completed(map(work, [1])): await each"),
    ],
    "DUR012": [
        ("count = 0", "global count\ncount = 1"),
        ("SEEN = {}", "SEEN['x'] = 1"),
        ("SEEN: dict[str, int] = {}", "del SEEN['x']"),
        ("SEEN = []", "SEEN.append(1)"),
        ("SEEN = {'a': []}", "SEEN['a'].append(1)"),
        ("SEEN = {'a': 1}", "SEEN['a'] += 1"),
        ("class Limits:\n    most = 1", "Limits.most = 2"),
    ],
    "DUR013": [
        ("", "work(1)"),
        ("", "ask()"),
        ("", "asyncio.sleep(1)"),
        ("", "pick = work.options(timeout=None)\npick(1)"),
        ("", "ctx.call('far', returns=int)"),
        ("", "ctx.continue_as_new(2)"),
        ("", "ctx.map(work, [1])"),
        ("@orchestrator\nasync def child(ctx: Context) -> None: ...", "child.options(execution_id='x').start()"),
        ("async def helper(): ...", "helper()"),
        ("@orchestrator\nasync def child(ctx: Context) -> None: ...", "child()"),
        ("from durably import activity as task\n@task(retry=None)\ndef other(): ...", "other()"),
    ],
    "DUR014": [
        ("", "try:\n    await work(1)\nexcept BaseException:\n    pass"),
        ("", "try:\n    await work(1)\nexcept:\n    return"),
        ("", "try:\n    await work(1)\nexcept asyncio.CancelledError:\n    await work(2)"),
        ("", "try:\n    async with asyncio.timeout(1): ...\nexcept (ValueError, asyncio.CancelledError):\n    pass"),
        ("from contextlib import suppress", "with suppress(asyncio.CancelledError):\n    await work(1)"),
    ],
    "DUR015": [
        ("", "id(tags)"),
        ("", "sorted([], key=hash)"),
    ],
    "DUR016": [
        ("", "print(number)"),
        ("import logging", "logging.info('x')"),
        ("import logging\nlogger = logging.getLogger(__name__)", "logger.warning('x')"),
        ("import sys", "sys.stderr.write('x')"),
    ],
    "DUR017": [
        ("", "await work.fn(1)"),
        ("", "list(map(names.fn, []))"),
        ("@work.implement\ndef done(number: int) -> int: ...", "done(1)"),
    ],
    "DUR018": [
        ("from durably import Client\nclient: Client", "client.start('x', flow)"),
        ("from durably.embedded import Embedded\nruntime = Embedded('x.db')", "runtime.client.terminate('x', '')"),
        ("from durably import Client\nfrom durably.schedules import Schedules", "Schedules(number)"),
    ],
}

GOOD = [
    ("", "ctx.now(), ctx.random.choice([1]), ctx.uuid4(), ctx.logger.info('x')"),
    ("import random", "rng = random.Random(number)\nrng.shuffle([1])"),
    ("import random", "def pick(rng: random.Random): return rng.random()\npick(ctx.random)"),
    ("import time", "time.gmtime(0), time.strftime('%Y', time.gmtime(number))"),
    ("import uuid", "uuid.uuid5(uuid.NAMESPACE_DNS, 'x')"),
    ("import time", "def f(time): return time.time()\nf(number)"),
    ("import time", "time = number\ntime.sleep(1)"),
    ("from datetime import datetime, timedelta", "datetime.fromisoformat('2030-01-01') + timedelta(days=1)"),
    ("import os.path", "os.path.join('a', 'b')"),
    ("from pathlib import Path", "(Path('a') / 'b').name"),
    ("from urllib.parse import urlencode", "urlencode({})"),
    ("import requests", "try:\n    await work(1)\nexcept requests.RequestException:\n    pass"),
    ("import requests", "isinstance(number, requests.Response)"),
    ("import logging", "ctx.logger.log(logging.INFO, 'x')"),
    ("import socket", "def f(peer: socket.socket) -> socket.socket: ..."),
    ("", "await asyncio.sleep(1)\nawait asyncio.gather(work(1), work(2))"),
    ("", "async with asyncio.TaskGroup() as group:\n    group.create_task(work(1))"),
    ("", "task = asyncio.create_task(work(1))\nawait task"),
    ("", "for x in sorted(tags): ..."),
    ("", "len(tags), sum(len(x) for x in tags), max(tags), sorted([x.lower() for x in tags])"),
    ("", "{x.lower() for x in tags}"),
    ("", "'x' in tags\ntags.add('y')"),
    ("", "for x in dict.fromkeys([1, 2]): ..."),
    ("", "done: set[asyncio.Task[int]] = set()\nfor task in done: ..."),
    ("", "tasks = {asyncio.create_task(work(x)) for x in [1, 2]}\nawait asyncio.gather(*tasks)"),
    ("", "for each in asyncio.as_completed([asyncio.create_task(work(1))]): await each"),
    ("", "async with asyncio.TaskGroup() as g:\n    a = [g.create_task(work(x)) for x in [1]]"),
    ("LIMITS = {'a': 1}", "limit = LIMITS['a']\nlimits = dict(LIMITS)\nlimits['a'] = 2"),
    ("", "seen = []\ndef note():\n    seen.append(1)\nnote()"),
    ("", "def count():\n    nonlocal number\n    number += 1"),
    ("", "try:\n    await work(1)\nexcept asyncio.CancelledError:\n    await work(2)\n    raise"),
    ("", "try:\n    await work(1)\nexcept Exception:\n    pass"),
    ("", "try:\n    number + 1\nexcept BaseException:\n    pass"),
    ("", "job = asyncio.create_task(work(1))\njob.cancel()\ntry:\n    await job\nexcept asyncio.CancelledError: ..."),
    ("", "try:\n    await work(1)\nexcept asyncio.CancelledError:\n    raise\nexcept BaseException:\n    pass"),
    ("", "def print(text): ...\nprint('x')"),
    ("import time\n@activity\ndef slow(): time.sleep(1)", "await slow()"),
    ("import time\ndef unused(): time.sleep(1)", "await work(1)"),
    ("import time\n@work.implement\ndef done(number: int) -> int: return time.time_ns()", "await work(1)"),
]  # fmt: skip

_bad = [pytest.param(code, *each, id=f"{code} {each[1]}") for code, cases in BAD.items() for each in cases]


@pytest.mark.parametrize(("code", "before", "body"), _bad)
def test_what_breaks_a_rule_is_found(code: str, before: str, body: str, tmp_path: Path) -> None:
    assert codes(tmp_path, body, before)[:1] == [code]
    assert set(codes(tmp_path, body, before)) == {code}


@pytest.mark.parametrize(("before", "body"), GOOD)
def test_what_survives_a_replay_is_let_through(before: str, body: str, tmp_path: Path) -> None:
    assert codes(tmp_path, body, before) == []


def test_what_is_inside_of_what_breaks_a_rule_is_looked_at_too(tmp_path: Path) -> None:
    body = "(Path('x') / str(os.getpid())).read_text()"
    assert codes(tmp_path, body, "import os\nfrom pathlib import Path") == ["DUR004", "DUR003"]


def test_each_rule_is_broken_by_some_program() -> None:
    assert {*BAD, "DUR000"} == {rule.code for rule in RULES}


def test_codes_are_numbered_without_gaps() -> None:
    assert [rule.code for rule in RULES] == [f"DUR{number:03}" for number in range(len(RULES))]


def test_no_name_is_listed_twice() -> None:
    listed = [name for rule in RULES for name in rule.names.split()]
    assert sorted(listed) == sorted(set(listed))
    assert all(rule_of(name) for name in listed)
