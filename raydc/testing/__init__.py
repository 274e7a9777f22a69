"""The contracts of all kinds of parts, as tests. A plugin's author runs them with one line:

    RAYDC_PLUGINS=my_plugin.py pytest --pyargs raydc.testing

Only the parts of plugins are tested then; without a plugin, all parts of raydc are. Trackers are tested by a
subclass of `raydc.testing.trackers.TrackerContract`, which says how to read what they recorded.
"""
