"""One command for every table in docs: `python -m experiments.<name>`."""
