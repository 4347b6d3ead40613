"""Every case, in the order in which they run."""

from __future__ import annotations

from benchmarks.measuring import Case
from benchmarks.processes import hello_megabytes, hello_seconds, recovery
from benchmarks.replaying import replay_decoded, replay_gathered, replay_sequential
from benchmarks.running import fan_out, sequential, throughput
from benchmarks.yardstick import full_commits

CASES = (
    Case(
        "sqlite_full_commits_per_s",
        "commits/s",
        full_commits,
        "The yardstick: plain sqlite3, WAL and synchronous=FULL, one insert of 100 bytes a commit. Median.",
    ),
    Case(
        "replay_us_per_activity",
        "us",
        replay_sequential,
        "n activities one after the other, replayed from their stored bytes, as a cold turn does without the disk: "
        "turns decoded and added up, arguments bound, encoded and compared, results decoded. Best.",
    ),
    Case(
        "replay_gathered_us_per_activity",
        "us",
        replay_gathered,
        "The same with all n in one gather. Best.",
    ),
    Case(
        "replay_decoded_us_per_activity",
        "us",
        replay_decoded,
        "As replay_us_per_activity, but from turns that are decoded already: what the orchestrator's code costs. Best.",
    ),
    Case(
        "embedded_sequential_ms_per_step",
        "ms",
        sequential,
        "One execution of n activities one after the other, alone, from start to result. Median.",
    ),
    Case(
        "embedded_fanout_s",
        "s",
        fan_out,
        "One execution with n activities in one gather, from start to result. Median.",
    ),
    Case(
        "embedded_throughput_wf_per_s",
        "wf/s",
        throughput,
        "n executions of 5 steps, started by one thread as fast as it can, from the first start to the last "
        "result; p50_ms and p99_ms from each one's start to the stamp of its last turn. Median.",
    ),
    Case(
        "hello_world_s",
        "s",
        hello_seconds,
        "From the spawn of a process that imports durably to the first result it prints, on a new file. Median of n.",
    ),
    Case(
        "hello_world_rss_mb",
        "MB",
        hello_megabytes,
        "Peak memory of that process. Median of n.",
    ),
    Case(
        "recovery_s",
        "s",
        recovery,
        "kill -9 at 40 % of n executions of 20 steps; from the spawn of a fresh process to the first turn it "
        "stores; all_done_s until everything is completed. Median.",
    ),
)
