"""The web page at the ingress (ask, board, policy): routes, data and static files.

Nothing here is on the path of a request. Knows neither Ray nor vLLM.
"""
