"""Black-box load tests over HTTP; imports nothing of ours."""
