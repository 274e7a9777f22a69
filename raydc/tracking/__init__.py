"""Where results go: the ledger (the truth) and the trackers (its public record)."""
