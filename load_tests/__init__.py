"""Black-box load tests over HTTP; imports no other package of the project."""
