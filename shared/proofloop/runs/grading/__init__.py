"""People's grades of a run: their history, the grades that count, agreement, rows to export."""
