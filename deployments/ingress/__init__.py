"""The HTTP deployment: endpoints, the request pipeline, relay and accounting."""
