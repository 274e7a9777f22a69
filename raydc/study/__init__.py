"""The life of one study: checked, planned, run, recorded, watched."""
