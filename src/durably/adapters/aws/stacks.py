"""The settings of a deployed stack: those that its functions are told."""

from __future__ import annotations

from durably.adapters.aws.clients import Clients
from durably.adapters.aws.faults import aws_errors
from durably.adapters.aws.settings import AwsSettings
from durably.core.errors import ConfigurationError

_FUNCTION = "Timers"  # in every deployment, whatever its orchestrators and activities are


def settings_of(stack: str, clients: Clients) -> AwsSettings:
    """What the template's Globals hand to each function of that stack.

    Args:
        stack: its name, or its ARN.
        clients: whoever asks.

    Raises:
        ConfigurationError: there is no such stack, it is none of durably's, or it may not be looked at.
    """
    try:
        found = clients.cloudformation.describe_stack_resource(StackName=stack, LogicalResourceId=_FUNCTION)
        function = found["StackResourceDetail"]["PhysicalResourceId"]
        told = clients.functions.get_function_configuration(FunctionName=function)
    except aws_errors() as error:
        raise ConfigurationError(
            f"The stack {stack!r} cannot be read ({error}). Name one that durably's template made, in the account and "
            "region of your settings (AWS_PROFILE, AWS_REGION); cloudformation:DescribeStackResource and "
            "lambda:GetFunctionConfiguration must be allowed."
        ) from error
    return AwsSettings.from_environment(told.get("Environment", {}).get("Variables", {}))
