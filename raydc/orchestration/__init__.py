"""Ray: where work runs, who does it, and in which order. The only package that imports ray."""
