"""The page on which people watch a run, and past runs: it only reads.

`watch` looks at the objects of a run; all else here knows plain data, and the ``run.json`` of runs
that are over. Nothing of a run waits for the page.
"""
