from durably.aws import orchestrator_handler
from orchestrators import arrivals, stories

handler = orchestrator_handler(
    stories.sums,
    stories.fans_out,
    stories.persists,
    stories.runs_out_of_time,
    stories.waits_in_vain,
    stories.waits_for_hours,
    stories.carries,
    stories.naps,
    stories.works,
    stories.ponders,
    stories.spins,
    stories.kills,
    stories.loses,
    stories.is_upgraded,
    stories.is_broken,
    arrivals.arrives,
)
