"""A packet is routed: requests through `sam local start-api`, everything else through `sam local invoke`."""

from __future__ import annotations

from typing import Any

from tests.cloud.stack import Stack, request
from tests.cloud.transmit import TransmitService
from tests.sam_local.local import SamLocal
from tests.sam_local.machine import MachineError

PACKET = "by-hand"
QUEUES = {"RoutingOrchestrator": "EventsQueue", "RoutingActivities": "RoutingActivitiesQueue"}
ENOUGH = 12


class Story:
    """Hands over, one by one, what the event source mappings of a real deployment would hand over."""

    def __init__(self, stack: Stack, local: SamLocal, service: TransmitService) -> None:
        self._stack = stack
        self._local = local
        self._service = service
        self._sqs = stack.client("sqs")

    def tell(self) -> str:
        """Start, turns, activities, callback, result; returns what happened."""
        for queue in QUEUES.values():
            self._sqs.purge_queue(QueueUrl=self._stack.queue(queue))
        with self._local.api() as url:
            packet = {"id": PACKET, "source": "+1", "destination": "+2", "contents": "SGVsbG8="}
            wanted = {"packet": packet, "transmit_deadline": "PT600S"}
            body = {"orchestrator": "route_packet", "execution_id": PACKET, "input": {"request": wanted}}
            _expect(request("POST", f"{url}/executions", body, signed=False), 201)
            handed = self._hand_over_until_idle()
            callback = self._service.callbacks[PACKET][0]
            if not callback.startswith(f"{url}/callbacks/"):
                raise MachineError(f"A callback address leads elsewhere: {callback}")
            _expect(request("POST", callback, {"delivered": True}, signed=False), 200)
            handed += self._hand_over_until_idle()
            closed = _expect(request("GET", f"{url}/executions/{PACKET}/result", signed=False), 200)
        if closed["status"] != "completed" or closed["result"]["status"] != "DELIVERED":
            raise MachineError(f"The packet was not delivered: {closed}")
        return ", ".join(["POST /executions", *handed, "GET result: DELIVERED"])

    def _hand_over_until_idle(self) -> list[str]:
        """The functions invoked, in order."""
        handed: list[str] = []
        while len(handed) < ENOUGH:
            batches = [(function, self._receive(queue)) for function, queue in QUEUES.items()]
            if not any(records for _, records in batches):
                return handed
            for function, records in batches:
                if records:
                    answer = self._local.invoke(function, {"Records": records})
                    if answer != {"batchItemFailures": []}:
                        raise MachineError(f"{function} answered {answer}")
                    self._delete(QUEUES[function], records)
                    handed.append(function)
        raise MachineError(f"There is no end to the messages of one packet: {handed}")

    def _receive(self, queue: str) -> list[dict[str, Any]]:
        """Messages as Lambda hands them to functions."""
        url = self._stack.queue(queue)
        arn = self._sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        received = self._sqs.receive_message(QueueUrl=url, AttributeNames=["All"], WaitTimeSeconds=1)
        return [
            {
                "messageId": each["MessageId"],
                "receiptHandle": each["ReceiptHandle"],
                "body": each["Body"],
                "attributes": each["Attributes"],
                "messageAttributes": {},
                "md5OfBody": each["MD5OfBody"],
                "eventSource": "aws:sqs",
                "eventSourceARN": arn,
                "awsRegion": arn.split(":")[3],
            }
            for each in received.get("Messages", [])
        ]

    def _delete(self, queue: str, records: list[dict[str, Any]]) -> None:
        for each in records:
            self._sqs.delete_message(QueueUrl=self._stack.queue(queue), ReceiptHandle=each["receiptHandle"])


def _expect(answer: Any, status: int) -> Any:
    if answer.status != status:
        raise MachineError(f"start-api answered {answer}, not {status}")
    return answer.body
