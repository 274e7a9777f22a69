"""Recording of results: the ledger in the study's folder, and trackers such as MLflow."""
