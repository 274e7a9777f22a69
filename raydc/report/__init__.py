"""The report: figure data, drawings, and one self-contained HTML file."""
