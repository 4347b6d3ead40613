"""`make cloud`: this project, deployed to a small AWS on this machine, until Ctrl-C."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.cloud.deployment import Deployment, DeploymentError
from tests.cloud.emulator import ROOT, Emulator, EmulatorError

TOLD = """\
{stack} is up, {seconds:.0f} s after `sam build` began.

  API        {url}
  table      {table}
  all of AWS {aws}   (AWS_ENDPOINT_URL, key and secret "test", region us-east-1)
  log        {log}

Its activities ask the services at {service} for routes; start them in another terminal:

  {python} -m demo.transmit_service --port {service_port} --seed 7 --error-chance 0.1 --callback-chance 0.8 \\
      --max-delay 2 --deadline 5

Start an execution, and look at it (the signature needs curl 7.75 or newer):

  SIGNED='curl -s --aws-sigv4 aws:amz:us-east-1:execute-api --user test:test -H content-type:application/json'
  $SIGNED -X POST {url}/executions -d '{{"orchestrator": "route_packet", "execution_id": "packet-1", "input": \
{{"request": {{"packet": {{"id": "packet-1", "source": "+1", "destination": "+2", "contents": "SGVsbG8="}}}}}}}}'
  $SIGNED {url}/executions/packet-1/result

Ctrl-C ends it, and forgets everything.
"""


def main() -> int:
    """Bring it up, say where it is, wait."""
    parser = argparse.ArgumentParser(prog="make cloud", description=__doc__)
    parser.add_argument("--port", type=int, default=4566, help="of the small AWS (default: %(default)s)")
    parser.add_argument("--service-port", type=int, default=8701, help="where the routing services will be")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    service = f"http://127.0.0.1:{options.service_port}"
    try:
        with tempfile.TemporaryDirectory(prefix="durably-cloud-") as directory:
            work = Path(directory)
            with Emulator(work, options.port) as emulator:
                print("sam build, sam deploy ...", file=sys.stderr)
                deployment = Deployment(emulator, ROOT, "durably", work, RoutingServiceUrl=service)
                deployment.bring_up()
                print(
                    TOLD.format(
                        stack=deployment.stack,
                        seconds=deployment.seconds,
                        url=deployment.outputs["ApiUrl"],
                        table=deployment.outputs["Table"],
                        aws=emulator.url,
                        log=emulator.log,
                        service=service,
                        service_port=options.service_port,
                        python=".venv/bin/python",
                    ),
                    flush=True,
                )
                while emulator.running:
                    time.sleep(0.5)
                print(f"ministack ended by itself:\n{emulator.log.read_text()[-2000:]}", file=sys.stderr)
                return 1
    except KeyboardInterrupt:
        return 0
    except (DeploymentError, EmulatorError) as error:
        print(f"make cloud: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
