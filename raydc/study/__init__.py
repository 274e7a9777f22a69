"""The lifecycle of a study: check, plan, run, record, watch."""
