"""The web page of the ingress (Ask, Board, Policy): routes, data and static files.

Nothing here is on the path of a request. Knows neither Ray nor vLLM.
"""
