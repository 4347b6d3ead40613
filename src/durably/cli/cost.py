"""`durably cost`: what an execution costs on AWS, or would, were it there."""

from __future__ import annotations

from durably.adapters.aws.costs import Functions, Prices, steps_of, usage_of
from durably.cli.arguments import Options
from durably.cli.opening import opened
from durably.cli.output import print_json, print_table


def cost(options: Options) -> int:
    """`durably cost`."""
    with opened(options) as store:
        record = store.record(options.execution_id)
        turns = store.backend.load_turns(record.key)
    functions = Functions(
        turn_ms=options.turn_ms,
        turn_mb=options.turn_mb,
        activity_ms=options.activity_ms,
        activity_mb=options.activity_mb,
    )
    prices = Prices.published()
    lines = prices.bill(usage_of(record, turns, functions))
    total, steps = sum(line.dollars for line in lines), steps_of(turns)
    if options.json:
        print_json(
            {
                "execution_id": record.execution_id,
                "steps": steps,
                "lines": [{"what": line.what, "units": line.units, "dollars": line.dollars} for line in lines],
                "dollars": total,
                "prices": {"source": prices.source, "date": prices.date, "region": prices.region},
            }
        )
        return 0
    rows = [(line.what, f"{line.units:,.10g}", f"{1e6 * line.dollars:,.2f}") for line in lines]
    print_table(("WHAT", "UNITS", "MICRODOLLARS"), [*rows, ("total", "", f"{1e6 * total:,.2f}")])
    if steps:
        print(f"\n{steps} steps; a million like these cost {1e6 * total / steps:,.2f} dollars.")
    print(f"An estimate, at the prices of {prices.date} in {prices.region} ({prices.source}).")
    return 0
