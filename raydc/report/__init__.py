"""The report: figure data, plots, and one self-contained HTML file."""
