"""The page at the ingress (ask, board, policy) and `to-router chat`: static files, and the data they show.

Nothing here is on the path of a request. Knows neither Ray nor vLLM.
"""
