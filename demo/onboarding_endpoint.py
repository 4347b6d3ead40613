"""Where users are approved, in a process of its own.

GET  /users                         200, the users in the database: id,name,dob,city,approved
POST /approvals, a CSV of ids       202 stored, 400 malformed, 409 the onboarding has ended
POST /reminders {"key": ..., ...}   200, the approver is told, once per key
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import signal
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import StringIO
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from activities.user_onboarding import CsvError, Reminder, all_users, read_ids
from demo.console import say
from demo.processes import end_with_parent
from durably import Client, DurablyError, ExecutionExistsError
from durably.embedded import connect
from orchestrators.user_onboarding import APPROVED, Approval, OnboardingRequest, onboard_users

EXECUTION = "user-onboarding"
LONGEST_BODY = 100_000


class Endpoint(HTTPServer):
    """The server; an approval that comes before the CSV starts the onboarding with `request`."""

    def __init__(self, client: Client, request: OnboardingRequest) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self._client = client
        self._request = request
        self._reminded = set[str]()

    @property
    def url(self) -> str:
        """Base address, without a trailing slash."""
        return f"http://127.0.0.1:{self.server_port}"

    def approve(self, body: bytes) -> tuple[int, str]:
        """Status and text of the answer to a CSV of ids. The same CSV, sent again, is the same approval."""
        try:
            approval = Approval(ids=read_ids(body.decode()))
        except (CsvError, UnicodeDecodeError) as error:
            return 400, str(error)
        flow = onboard_users.options(request_id=hashlib.sha256(body).hexdigest())
        try:
            self._client.signal_with_start(EXECUTION, APPROVED, approval, flow, self._request)
        except ExecutionExistsError:
            return 409, f"the onboarding has ended: {self._end()}"
        return 202, f"{len(approval.ids)} ids are stored"

    def remind(self, body: bytes) -> tuple[int, str]:
        """Status and text of the answer to a reminder."""
        try:
            reminder = Reminder.model_validate_json(body)
        except ValidationError as error:
            return 400, str(error)
        if reminder.key not in self._reminded:
            self._reminded.add(reminder.key)
            say("approver", f"is reminded: {reminder.users} users wait in {reminder.execution_id}")
        return 200, "noted"

    def users(self) -> str:
        """All users, as CSV."""
        text = StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(["id", "name", "dob", "city", "approved"])
        rows.writerows(all_users())
        return text.getvalue()

    def _end(self) -> str:
        try:
            return str(self._client.handle(EXECUTION, onboard_users).result(timeout=1).status)
        except DurablyError as error:
            return str(error)


class Handler(BaseHTTPRequestHandler):
    """Requests in, calls of the endpoint out."""

    server: Endpoint
    timeout = 5

    def do_GET(self) -> None:  # the standard library's name
        """Answer /users."""
        if self.path == "/users":
            self._answer(200, self.server.users(), "text/csv")
        else:
            self._answer(404, f"nothing is at {self.path}")

    def do_POST(self) -> None:
        """Answer /approvals and /reminders."""
        handle = {"/approvals": self.server.approve, "/reminders": self.server.remind}.get(self.path)
        length = self.headers.get("Content-Length", "")
        if handle is None:
            self._answer(404, f"nothing is at {self.path}")
        elif not length.isdecimal() or int(length) > LONGEST_BODY:
            self._answer(413, f"Content-Length must be given, and at most {LONGEST_BODY}")
        else:
            self._answer(*handle(self.rfile.read(int(length))))

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the endpoint says what matters."""

    def _answer(self, status: int, text: str, kind: str = "text/plain") -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        say("endpoint", f"{self.command} {self.path}: {status}{'' if kind == 'text/csv' else ' ' + text}")


def main() -> None:
    """Serve until told to end. The first line of standard output is the server's URL."""
    parser = argparse.ArgumentParser(description="Where users are approved.")
    parser.add_argument("--db", type=Path, required=True, help="where the executions are")
    parser.add_argument("--request", type=Path, required=True, help="what an early approval starts the onboarding with")
    options = parser.parse_args()
    request = OnboardingRequest.model_validate_json(options.request.read_bytes())
    with Endpoint(connect(options.db, orchestrators=[onboard_users]), request) as server:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        end_with_parent()
        print(server.url, flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
