"""Route packets through unreliable providers, and if you like kill the runtime half-way: `make demo`.

Starts the services and the runtime as processes of their own, submits packets, prints them as JSON when they are done.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

from activities.routing import SERVICE_URL, Packet, PacketStatus
from demo import transmit_service
from demo.console import say
from demo.fate import IN_TIME, Fate
from demo.processes import ROOT, Child, without_proxy
from demo.running import DATABASE_HELP, StoryError, run
from durably import Client, Handle
from durably.embedded import connect
from orchestrators.routing import RoutingRequest, route_packet

EVENT = ROOT / "events/packet_routing.json"
KILL_AT = 0.4  # of the packets done
TELL_EACH_UP_TO = 30  # packets; of more, only how many are done


class Runtime:
    """The runtime process, which can be killed and brought back on the same file and the same port."""

    def __init__(self, db: Path, environment: dict[str, str], *, quiet: bool) -> None:
        self._environment = environment
        self._arguments = [f"--db={db}", *(["--quiet"] if quiet else [])]
        self.process = self._start(port=0)
        self.killed = False

    def kill_and_restart(self) -> float:
        """Seconds from the kill until the new process is ready."""
        port = urlsplit(self.process.url).port
        assert port is not None
        self.killed = True
        killed_at = time.monotonic()
        self.process.kill()
        self.process = self._start(port)
        return time.monotonic() - killed_at

    def _start(self, port: int) -> Child:
        return Child("demo.runtime", [*self._arguments, f"--port={port}"], self._environment)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; 0 when each packet was delivered or given up."""
    options = parse(arguments)
    return run("demo", options.db, lambda db: route(options, db))


def tell(arguments: Sequence[str]) -> int:
    """Run the demo as one of the stories: each packet is printed on a line of its own."""
    return main([*arguments, "--lines"])


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m demo.packet_routing", description=(__doc__ or "").strip())
    parser.add_argument("--packets", type=number(int, least=1), default=1, metavar="N")
    parser.add_argument("--seed", type=int, default=None, help="the same seed gives the same packets; default: random")
    parser.add_argument(
        "--error-chance", type=number(float, most=1), default=0.1, help="of a network error per get_route"
    )
    parser.add_argument(
        "--callback-chance", type=number(float, most=1), default=0.9, help="of an acknowledgement at all"
    )
    parser.add_argument(
        "--deadline", type=number(float, least=0.05), metavar="SECONDS", help="of transmit; default: 1, with --kill 3"
    )
    parser.add_argument(
        "--max-delay",
        type=number(float),
        metavar="SECONDS",
        help="of an acknowledgement; default: 1.5 times the deadline",
    )
    parser.add_argument(
        "--max-attempts", type=number(int, least=1), default=4, metavar="N", help="of transmit, per packet"
    )
    parser.add_argument("--kill", action="store_true", help="kill -9 the runtime half-way, and restart it")
    parser.add_argument(
        "--lines", action="store_true", help="print each packet on one line, also when it is the only one"
    )
    parser.add_argument("--db", type=Path, help=DATABASE_HELP)
    options = parser.parse_args(arguments)
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(1000)
    if options.deadline is None:
        options.deadline = 3.0 if options.kill else 1.0  # the restart has to fit in
    if options.max_delay is None:
        options.max_delay = 1.5 * options.deadline
    return options


def number(kind: type[int] | type[float], *, least: float = 0, most: float = math.inf) -> Callable[[str], float]:
    """An argparse type: a number from `least` to `most`."""

    def convert(text: str) -> float:
        value = kind(text)
        if not least <= value <= most or math.isinf(value):
            bounds = f"at least {least:g}" if math.isinf(most) else f"from {least:g} to {most:g}"
            raise argparse.ArgumentTypeError(f"must be {bounds}, not {text}")
        return value

    convert.__name__ = kind.__name__
    return convert


def route(options: argparse.Namespace, db: Path) -> None:
    """Start the processes, submit the packets, follow them to their ends."""
    quiet = options.packets > TELL_EACH_UP_TO
    fate = Fate(
        seed=options.seed,
        error_chance=options.error_chance,
        callback_chance=options.callback_chance,
        max_delay=options.max_delay,
        deadline=options.deadline,
    )
    say("demo", f"{several(options.packets, 'packet')}, seed {options.seed}, database {db}")
    environment = {**os.environ, **without_proxy()}
    with Child("demo.transmit_service", transmit_service.arguments_of(fate, quiet=quiet), environment) as service:
        say("service", f"routes and transmits at {service.url} (pid {service.pid})")
        with running_runtime(db, {**environment, SERVICE_URL: service.url}, quiet=quiet) as runtime:
            client = connect(db, orchestrators=[route_packet])
            started_at = time.monotonic()
            handles = submit(client, options)
            follower = Follower(client, handles, runtime=runtime, service=service, options=options)
            packets = follower.follow()
            summarise(packets, counts_of(service), seconds=time.monotonic() - started_at)
            service.stop()  # first, or it would find nobody to take what is still to be acknowledged


@contextmanager
def running_runtime(db: Path, environment: dict[str, str], *, quiet: bool) -> Iterator[Runtime]:
    """A runtime that is stopped in the end, whichever process it is by then."""
    runtime = Runtime(db, environment, quiet=quiet)
    try:
        say("runtime", f"takes callbacks at {runtime.process.url} (pid {runtime.process.pid})")
        yield runtime
    finally:
        runtime.process.stop()


def submit(client: Client, options: argparse.Namespace) -> list[Handle[Packet]]:
    """Start an execution per packet; one that the database holds already is taken up where it stands."""
    template = RoutingRequest.model_validate_json(EVENT.read_bytes())
    deadline = timedelta(seconds=options.deadline)
    handles = []
    for n in range(1, options.packets + 1):
        request = template.model_copy(
            update={
                "packet": template.packet.model_copy(update={"id": f"packet-{n:04}"}),
                "get_route_retry_interval": deadline / 10,  # the story's proportion: 1 s to 10 s
                "transmit_max_attempts": options.max_attempts,
                "transmit_deadline": deadline,
            }
        )
        handles.append(client.start(request.packet.id, route_packet.options(id_reuse="use_existing"), request))
    return handles


class Follower:
    """Watches packets through a client of the file, which neither knows nor needs the runtime.

    Args:
        client: of the file.
        handles: the packets, in the order in which they are printed.
        runtime: killed on the way if `options.kill`.
        service: asked how many packets are on their way.
        options: the command line.
    """

    def __init__(
        self,
        client: Client,
        handles: Sequence[Handle[Packet]],
        *,
        runtime: Runtime,
        service: Child,
        options: argparse.Namespace,
    ) -> None:
        self._client = client
        self._handles = {handle.execution_id: handle for handle in handles}
        self._runtime = runtime
        self._service = service
        self._options = options
        self._done: dict[str, Packet] = {}
        self._printed = 0
        self._told_at = time.monotonic()

    def follow(self) -> list[Packet]:
        """All packets, once all are done.

        Raises:
            StoryError: they are not within the time that the deadlines allow.
            DurablyError: an execution failed.
            ChildFailedError: a process ended by itself.
        """
        options = self._options
        patience = options.deadline * (options.max_attempts + 1) * 1.5 + 30 + options.packets * 0.1
        give_up_at = time.monotonic() + patience
        while True:
            looked_at = time.monotonic()
            self._look()
            look_took = time.monotonic() - looked_at
            if len(self._done) == len(self._handles):
                break
            if looked_at > give_up_at:
                missing = ", ".join(sorted(set(self._handles) - set(self._done)))
                raise StoryError(f"after {patience:.0f} s these packets are neither delivered nor given up: {missing}")
            self._runtime.process.check()
            self._service.check()
            if options.kill and not self._runtime.killed and self._is_half_way():
                self._kill()
            time.sleep(max(0.02, 2 * look_took))
        if options.kill and not self._runtime.killed:
            say("demo", "every packet was done before its runtime could be killed; killing it all the same")
            self._kill()
        return list(self._done.values())

    def _look(self) -> None:
        for record in self._client.list(orchestrator=route_packet.name):
            packet_id = record.execution_id
            if packet_id not in self._handles or packet_id in self._done:
                continue
            if record.status == "stalled":
                raise StoryError(f"{packet_id} is stalled: {record.failure}")
            if record.closed:
                self._done[packet_id] = self._handles[packet_id].result(timeout=0)
                self._tell(packet_id)
        self._print()

    def _tell(self, packet_id: str) -> None:
        if len(self._handles) <= TELL_EACH_UP_TO:
            say("demo", describe(self._done[packet_id]))
        elif time.monotonic() - self._told_at >= 1:
            self._told_at = time.monotonic()
            say("demo", f"{len(self._done)} of {len(self._handles)} packets done")

    def _print(self) -> None:
        """Print packets in their order, each as soon as those before it are printed."""
        order = list(self._handles)
        while self._printed < len(order) and order[self._printed] in self._done:
            packet = self._done[order[self._printed]]
            one_line = self._options.lines or len(order) > 1
            print(packet.model_dump_json(indent=None if one_line else 2), flush=True)
            self._printed += 1

    def _is_half_way(self) -> bool:
        """Whether 40 % are done; of one or two packets, whether a transmission is under way."""
        wanted = math.floor(KILL_AT * len(self._handles))
        return len(self._done) >= wanted if wanted else counts_of(self._service)["submitted"] > 0

    def _kill(self) -> None:
        pending = counts_of(self._service)["pending"]
        say(
            "demo",
            f"kill -9 of the runtime (pid {self._runtime.process.pid}): "
            f"{len(self._done)} of {len(self._handles)} packets done, {several(pending, 'acknowledgement')} on the way",
        )
        away = self._runtime.kill_and_restart()
        process = self._runtime.process
        say("runtime", f"back after {away:.2f} s, same file, same address {process.url} (pid {process.pid})")
        if away > (1 - IN_TIME) * self._options.deadline:
            say(
                "demo",
                "that was long: an acknowledgement may have missed its deadline meanwhile, and change the result",
            )


def describe(packet: Packet) -> str:
    """A line about a packet that is done."""
    failed = ", ".join(packet.failed_route_providers)
    match packet.status:
        case PacketStatus.DELIVERED:
            return f"{packet.id}: DELIVERED by {packet.current_route_provider}" + (f" after {failed}" if failed else "")
        case _:
            return f"{packet.id}: {packet.status}, " + (f"given up after {failed}" if failed else "no route was found")


def counts_of(service: Child) -> dict[str, int]:
    """What became of the transmissions so far."""
    with urlopen(f"{service.url}/transmissions", timeout=10) as response:
        counts: dict[str, int] = json.load(response)
    return counts


def summarise(packets: Sequence[Packet], counts: dict[str, int], *, seconds: float) -> None:
    """A last line."""
    delivered = sum(packet.status is PacketStatus.DELIVERED for packet in packets)
    given_up = len(packets) - delivered
    sent = several(counts["submitted"], "transmission")
    say("demo", f"{several(len(packets), 'packet')}: {delivered} delivered, {given_up} given up, in {seconds:.1f} s")
    say(
        "demo",
        f"{sent}: {counts['accepted']} acknowledged in time, {counts['late']} too late, {counts['never']} never, "
        f"{counts['pending']} still to come",
    )


def several(count: int, what: str) -> str:
    """The count with its noun."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


if __name__ == "__main__":
    sys.exit(main())
