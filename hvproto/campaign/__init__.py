"""Campaigns: many scenarios of guest, plan, seed and relocation schedule, on many workers, in one file of results.

`file` reads what is to be run, `scenario` says what one scenario is, `perform` runs one in a worker, `workers` and
`cluster` are who runs them, `store` keeps the results, `minimise` makes failures small, `run` brings these together.
"""
