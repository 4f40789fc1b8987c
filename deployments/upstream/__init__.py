"""The experts as the ingress reaches them: clients, dispatch, circuit breakers, discovery."""
