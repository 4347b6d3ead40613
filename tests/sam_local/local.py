"""`sam local` on a stack that is up: its functions run in containers, its table and queues are the small cloud's."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.cloud.deployment import SAM, Deployment
from tests.cloud.emulator import CREDENTIALS, surroundings
from tests.infra.reading import NESTED
from tests.sam_local.machine import Engine, MachineError, run

INVOKE_WITHIN_S = 90.0
START_WITHIN_S = 90.0
STOP_WITHIN_S = 30.0
CLOUD = "AWS_ENDPOINT_URL"

yaml: Any = import_module("yaml")  # untyped; it comes with moto


class SamLocal:
    """Its functions, by logical id.

    Attributes:
        functions: all of them.
    """

    def __init__(self, deployment: Deployment, engine: Engine, port: int) -> None:
        self.port = port
        self._work = deployment.work
        self._environment = {
            **CREDENTIALS,
            **engine.environment,
            "SAM_CLI_TELEMETRY": "0",
            CLOUD: deployment.emulator.url,  # SAM itself asks whose account this is
        }
        template = _template(self._work / "built")
        resources = template["Resources"].items()
        self.functions = [name for name, each in resources if each["Type"] == "AWS::Serverless::Function"]
        (self._work / "built" / "local.yaml").write_text(yaml.safe_dump(template, sort_keys=False))
        variables = self._variables(deployment)
        (self._work / "variables.json").write_text(json.dumps(variables))
        self._options = [
            *("--template", str(self._work / "built" / "local.yaml"), "--skip-pull-image"),
            *("--env-vars", str(self._work / "variables.json"), "--layer-cache-basedir", str(self._work / "layers")),
            *("--parameter-overrides", *(f"{name}={value}" for name, value in deployment.parameters.items())),
        ]

    def _variables(self, deployment: Deployment) -> dict[str, dict[str, str]]:
        """What the deployed functions have in their environments, by logical id."""
        found: dict[str, dict[str, str]] = {}
        functions = deployment.client("lambda")
        for page in functions.get_paginator("list_functions").paginate():
            for each in page["Functions"]:
                name = each["FunctionName"].removeprefix(f"{deployment.stack}-").rpartition("-")[0]
                found[name] = {**each["Environment"]["Variables"], CLOUD: deployment.emulator.url}
        assert found.keys() == set(self.functions), found.keys()
        return found

    def invoke(self, function: str, event: object) -> Any:
        """What the function answered to an event; None if nothing."""
        file = self._work / "event.json"
        file.write_text(json.dumps(event))
        arguments = ["local", "invoke", function, "--event", str(file), *self._options]
        printed = run(SAM, *arguments, within=INVOKE_WITHIN_S, more=self._environment).strip()
        answer = json.loads(printed.splitlines()[-1]) if printed else None
        if isinstance(answer, dict) and "errorType" in answer:
            raise MachineError(f"{function} failed: {answer['errorType']}: {answer.get('errorMessage')}")
        return answer

    @contextmanager
    def api(self) -> Iterator[str]:
        """`sam local start-api`; the address."""
        log = self._work / "start-api.log"
        command = [
            str(SAM),
            "local",
            "start-api",
            "--port",
            str(self.port),
            "--warm-containers",
            "LAZY",
            *self._options,
        ]
        with log.open("w") as sink:
            process = subprocess.Popen(
                command,
                env=surroundings() | self._environment,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                start_new_session=True,
            )
        try:
            deadline = time.monotonic() + START_WITHIN_S
            while not _listens(self.port):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise MachineError(f"sam local start-api did not start:\n{log.read_text()[-3000:]}")
                time.sleep(0.2)
            yield f"http://127.0.0.1:{self.port}"
        except Exception as error:
            error.add_note(f"sam local start-api:\n{log.read_text()[-3000:]}")
            raise
        finally:
            process.send_signal(signal.SIGINT)  # ends its warm containers, too
            try:
                process.wait(STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _template(built: Path) -> dict[str, Any]:
    """The one that was built, with two additions, and without its nested stacks, which SAM would read at each call.

    SAM sets only variables that the template declares, and beside SAM's own functions it sees only routes that are
    written as their events (SAM CLI 1.170, SamApiProvider); ours are resources of a nested stack.
    """
    template: dict[str, Any] = yaml.safe_load((built / "template.yaml").read_text())
    template["Globals"]["Function"]["Environment"]["Variables"][CLOUD] = ""
    resources = template["Resources"]
    for stack in (resources["Routes"]["Properties"], resources["TriggersSources"]["Properties"]):
        nested = yaml.safe_load((built / stack["TemplateURL"]).read_text())["Resources"]
        for name, each in nested.items():
            if each["Type"] == "AWS::ApiGatewayV2::Route":
                properties = each["Properties"]
                integration = properties["Target"]["Fn::Sub"].removeprefix("integrations/${").removesuffix("}")
                parameter = nested[integration]["Properties"]["IntegrationUri"]["Ref"]
                function, _ = stack["Parameters"][parameter]["Fn::GetAtt"]
                method, path = properties["RouteKey"].split()
                event = {"Type": "HttpApi", "Properties": {"Method": method, "Path": path}}
                resources[function]["Properties"].setdefault("Events", {})[name] = event
    template["Resources"] = {id_: each for id_, each in resources.items() if each["Type"] != NESTED}
    return template


def _listens(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.connect()
    except OSError:
        return False
    finally:
        connection.close()
    return True
