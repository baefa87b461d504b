"""Is one joint model better than one model per task, and what do routing and balancing add?

What launchers/compare_tasks.py does: plan the runs, train them, keep records, and make the table from those.
"""
