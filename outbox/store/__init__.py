"""All of the outbox's SQL but the enqueue: nothing here knows HTTP, and nothing else knows a table's columns.

One file per group of verbs; each function is one short transaction, or a few in a row where its docstring says so.
What differs by database stands in `outbox.store.dialects`.
"""
