"""One committed command for every table: `python -m experiments.<name> --data FOLDER`."""
