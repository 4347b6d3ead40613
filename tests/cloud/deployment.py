"""The real `sam build` and `sam deploy` of a project, against the emulator."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from boto3 import Session

from tests.cloud.emulator import CREDENTIALS, REGION, ROOT, Emulator, surroundings

SAM = ROOT / ".venv-sam" / "bin" / "sam"
PYTHON = ROOT / ".venv-cloud" / "bin" / "python"
WITHIN_S = 300.0
RUNTIME = f"python{sys.version_info.major}.{sys.version_info.minor}"
ARCHITECTURE = "arm64" if platform.machine() in {"arm64", "aarch64"} else "x86_64"


class DeploymentError(Exception):
    """SAM refused, or the stack did not come up."""


class Deployment:
    """A project's stack.

    Attributes:
        stack: its name.
        platform: that the functions are built for; native is where they run as processes of this machine.
        outputs: of the stack, by key.
        seconds: that the last build and deployment took.
    """

    platform = "native"

    def __init__(self, emulator: Emulator, project: Path, stack: str, work: Path, **parameters: str) -> None:
        self.emulator = emulator
        self.project = project
        self.stack = stack
        self.work = work
        self.parameters = {"Architecture": ARCHITECTURE, "Runtime": RUNTIME, **parameters}
        self.outputs: dict[str, str] = {}
        self.seconds = 0.0

    def bring_up(self) -> None:
        """Build the project as it is now, and create or update the stack."""
        began = time.monotonic()
        chosen = [f"{name}={value}" for name, value in self.parameters.items()]
        built = self.work / "built"
        template = ["--template", str(self.project / "template.yaml"), "--parameter-overrides", *chosen]
        self._sam("build", "--build-dir", str(built), "--parallel", *template)
        self._sam(
            *("deploy", "--template", str(built / "template.yaml"), "--stack-name", self.stack, "--resolve-s3"),
            *("--capabilities", "CAPABILITY_IAM", "--no-confirm-changeset", "--no-fail-on-empty-changeset"),
            *("--no-progressbar", "--parameter-overrides", *chosen),
        )
        listed = self._sam("list", "stack-outputs", "--stack-name", self.stack, "--output", "json")
        self.outputs = {each["OutputKey"]: each["OutputValue"] for each in json.loads(listed)}
        self._let_them_schedule()
        self._let_them_count()
        for bucket in ("Bucket", "UsersBucket"):  # they refuse what does not come over TLS; there is none on loopback
            self.client("s3").delete_bucket_policy(Bucket=self.outputs[bucket])
        self.seconds = time.monotonic() - began

    def _let_them_schedule(self) -> None:
        """ministack 1.5.33 checks calls to EventBridge Scheduler against the group "default", whatever group they name.

        So whoever may create schedules in the stack's group may do so in that one, here.
        """
        iam = self.client("iam")
        allowed = {
            "Effect": "Allow",
            "Action": ["scheduler:CreateSchedule", "scheduler:DeleteSchedule"],
            "Resource": f"arn:aws:scheduler:{REGION}:*:schedule/default/*",
        }
        policy = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
        for page in iam.get_paginator("list_roles").paginate():
            for role in (each["RoleName"] for each in page["Roles"]):
                attached = iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]
                if any(f"{self.stack}-Schedules-" in each["PolicyArn"] for each in attached):
                    iam.put_role_policy(RoleName=role, PolicyName="default-group", PolicyDocument=policy)

    def _let_them_count(self) -> None:
        """ministack 1.5.33 takes a number for text where a nested stack gets it as a parameter, as event sources do."""
        functions = self.client("lambda")
        for page in functions.get_paginator("list_event_source_mappings").paginate():
            for each in page["EventSourceMappings"]:
                if f":function:{self.stack}-" in each["FunctionArn"]:
                    concurrency = {"MaximumConcurrency": int(each["ScalingConfig"]["MaximumConcurrency"])}
                    size = int(each["BatchSize"])
                    functions.update_event_source_mapping(UUID=each["UUID"], BatchSize=size, ScalingConfig=concurrency)

    def client(self, service: str) -> Any:
        """A boto3 client of the account's root."""
        session: Any = Session("test", "test", region_name=REGION)
        return session.client(service, endpoint_url=self.emulator.url)

    def _sam(self, *arguments: str) -> str:
        environment = surroundings() | CREDENTIALS
        environment |= {
            "AWS_ENDPOINT_URL": self.emulator.url,
            "SAM_CLI_TELEMETRY": "0",
            "ARCHITECTURE": self.platform,
            "RUNTIME": self.parameters["Runtime"],
            "PYTHON": str(PYTHON),
            "WHEELS": str(ROOT / "build" / "lambda"),
        }
        done = subprocess.run(
            [SAM, *arguments],
            cwd=self.work,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=WITHIN_S,
            check=False,
        )
        if done.returncode != 0:
            raise DeploymentError(f"sam {arguments[0]} failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
        return done.stdout
