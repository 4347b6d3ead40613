"""Use cases, written against ports: take turns, run attempts, complete callbacks, start and terminate executions."""
