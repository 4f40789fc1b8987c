"""Judge policies on recorded outcomes, through the code that serves."""
