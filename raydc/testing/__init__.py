"""The contracts of all kinds of parts, as tests. The author of a plugin runs them with one command:

    RAYDC_PLUGINS=my_plugin.py pytest --pyargs raydc.testing

It tests only the parts of plugins; without a plugin, it tests all parts of raydc. A tracker is tested by a
subclass of `raydc.testing.trackers.TrackerContract`, which implements how to read what it has recorded.
"""
